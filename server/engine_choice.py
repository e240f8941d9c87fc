"""Which engine runs a model, and why; or why none does, and the nearest thing that works.

Pure: everything it decides by is given to it. The order of `auto`:

1. a GGUF file, or a GGML file of before it: llama_cpp;
2. proxyllm: proxy;
3. a CUDA device and an architecture that vLLM runs: vllm;
4. else transformers, which runs the most.

An engine whose package is missing gives way to the next that can run the model. A known GGUF
build of a model is what `parlm pull` gets on a machine without CUDA (server/outlook.py), so there
rule 1 decides. `LLM_ENGINE` overrides the order and the bound on memory, not what an engine reads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from engines.architectures import engine_support
from engines.types import ModelDescription
from server.machine import Machine
from server.memory import in_gb, running_bytes, weights_bytes
from server.model_specs import ECHO, PROXY, ModelSpec
from server.settings import SettingsError

WeightsFormat = Literal["gguf", "ggml", "safetensors", "none"]

INSTALL_COMMANDS = {
    "llama_cpp": "run `make install`, or pip install '.[llama-cpp]'",
    "vllm": "pip install '.[vllm]'",
    "transformers": "pip install '.[transformers]'",
}
_READS: dict[str, Collection[str]] = {
    "llama_cpp": ("gguf", "ggml"),
    "vllm": ("safetensors",),
    "transformers": ("safetensors",),
}
# vLLM leaves a tenth of each device to others (gpu_memory_utilization).
_VLLM_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Weights:
    """What the choice asks of a model's weights, on the disk or in the catalogue.

    `where` is their path or repository, for messages. `architecture` is the name that
    `engines/architectures.toml` has for it; empty when unknown.
    """

    where: str
    format: WeightsFormat
    architecture: str = ""
    size_bytes: int = 0
    has_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine's name and one sentence, without its full stop, that says why this one."""

    engine: str
    reason: str


def weights_of(description: ModelDescription, quant: str | None = None) -> Weights:
    """Return what the files say. `quant` ("INT8", "NF4") is applied while safetensors load."""
    architecture, variant = description.architecture, description.variant
    size = description.size_bytes
    if quant is not None and description.format == "safetensors":
        size = min(size, weights_bytes(description.parameters or size // 2, quant))
    return Weights(
        where=description.path,
        format=description.format,
        architecture=f"{architecture}-{variant}" if variant else architecture,
        size_bytes=size,
        has_remote_code=description.has_remote_code,
    )


def choose_engine(
    spec: ModelSpec,
    weights: Weights,
    machine: Machine,
    registered: Collection[str],
    nearest: str = "",
) -> EngineChoice:
    """Return the engine for a model.

    `registered` are the engines this version has. `nearest` is a sentence about what would run
    instead, added when nothing does. Raises `SettingsError` naming the reason and a remedy.
    """
    if spec.name == ECHO:
        return EngineChoice("echo", "the model 'echo' repeats what it is told")
    if spec.name == PROXY or spec.engine == "proxy":
        reason = "LLM_ENGINE names it" if spec.engine == "proxy" else f"{PROXY} is forwarded"
        return _available(spec, EngineChoice("proxy", reason), machine, registered)
    if spec.engine != "auto":
        return _named(spec, weights, machine, registered)
    return _automatic(spec, weights, machine, registered, nearest)


def _named(
    spec: ModelSpec, weights: Weights, machine: Machine, registered: Collection[str]
) -> EngineChoice:
    for objection in (
        _architecture_objection(spec.engine, weights),
        _format_objection(spec.engine, weights, spec.name),
        _code_objection(spec.engine, weights, spec),
    ):
        if objection is not None:
            raise SettingsError(f"LLM_ENGINE={spec.engine}: {objection}")
    choice = EngineChoice(spec.engine, "LLM_ENGINE names it")
    return _available(spec, choice, machine, registered)


def _automatic(
    spec: ModelSpec,
    weights: Weights,
    machine: Machine,
    registered: Collection[str],
    nearest: str,
) -> EngineChoice:
    objections = {
        engine: objection(engine, weights, machine, spec) for engine in _order(weights, machine)
    }
    able = [engine for engine, found in objections.items() if found is None]
    if not able:
        found = dict.fromkeys(text for text in objections.values() if text)
        raise SettingsError(" ".join([f"LLM_MODEL={spec.name!r}: {'; '.join(found)}.", nearest]))
    missing = {engine: unavailability(engine, machine, registered) for engine in able}
    for engine in able:
        if missing[engine] is None:
            why_not = (objections | missing).get("vllm") if engine == "transformers" else None
            return EngineChoice(engine, _reason(engine, weights, machine, why_not))
    raise SettingsError(f"LLM_MODEL={spec.name!r} would run, but {missing[able[0]]}")


def _order(weights: Weights, machine: Machine) -> Sequence[str]:
    """The engines to try, the best first."""
    if weights.format in _READS["llama_cpp"]:
        return ["llama_cpp"]
    return ["vllm", "transformers"] if machine.gpus else ["transformers"]


def _reason(engine: str, weights: Weights, machine: Machine, why_not: str | None) -> str:
    if engine == "llama_cpp":
        return f"the weights are a {weights.format.upper()} file"
    if engine == "vllm":
        devices = ", ".join(f"{g.name} with {in_gb(g.memory_bytes)}" for g in machine.gpus)
        return f"there is a CUDA device ({devices}) and vLLM runs {weights.architecture}"
    return why_not or "the weights are safetensors and there is no CUDA device"


def _available(
    spec: ModelSpec, choice: EngineChoice, machine: Machine, registered: Collection[str]
) -> EngineChoice:
    if (missing := unavailability(choice.engine, machine, registered)) is not None:
        is_named = spec.engine != "auto"
        setting = f"LLM_ENGINE={spec.engine}" if is_named else f"LLM_MODEL={spec.name!r}"
        raise SettingsError(f"{setting}: {missing}")
    return choice


def unavailability(engine: str, machine: Machine, registered: Collection[str]) -> str | None:
    """Return why an engine cannot be used at all here, with the remedy, or None."""
    if engine not in registered:
        return f"the engine {engine!r} is not in this version of parlm"
    if engine not in machine.installed:
        remedy = INSTALL_COMMANDS.get(engine, "see CONTRIBUTING.md")
        return f"the package of the engine {engine!r} is not installed: {remedy}"
    return None


def objection(engine: str, weights: Weights, machine: Machine, spec: ModelSpec) -> str | None:
    """Return why an engine cannot run these weights on this machine, or None if it can."""
    return (
        _architecture_objection(engine, weights, must_be_known=engine == "vllm")
        or _format_objection(engine, weights, spec.name)
        or _code_objection(engine, weights, spec)
        or memory_objection(engine, weights, machine)
    )


def _format_objection(engine: str, weights: Weights, name: str) -> str | None:
    if weights.format in _READS[engine]:
        return None
    if engine == "llama_cpp":
        return (
            f"llama_cpp reads GGUF files, and {weights.where} holds {weights.format}: get a GGUF "
            f"of it (`parlm pull {name} --quant Q4_K_M` for models of `parlm models --catalog`), "
            "convert it with llama.cpp's convert_hf_to_gguf.py, or set LLM_ENGINE=auto"
        )
    return (
        f"{engine} reads folders of safetensors, and {weights.where} is a "
        f"{weights.format.upper()} file: set LLM_ENGINE=llama_cpp, or LLM_MODEL_PATH to such a "
        "folder"
    )


def _architecture_objection(
    engine: str, weights: Weights, *, must_be_known: bool = False
) -> str | None:
    architecture, support = weights.architecture, engine_support(engine)
    if (reason := support.refused.get(architecture)) is not None and weights.format != "ggml":
        return f"{reason}{_other_engine(engine, weights)}"
    # llama-cpp-python is pinned exactly, so its list is complete.
    is_complete = engine == "llama_cpp" and weights.format == "gguf"
    if (must_be_known or is_complete) and architecture not in support.runs:
        return f"{engine} does not know the architecture {architecture!r} of {weights.where}"
    return None


def _other_engine(engine: str, weights: Weights) -> str:
    others = [
        other
        for other, formats in _READS.items()
        if other != engine
        and weights.format in formats
        and weights.architecture in engine_support(other).runs
    ]
    return f"; LLM_ENGINE={others[0]} does" if others else ""


def _code_objection(engine: str, weights: Weights, spec: ModelSpec) -> str | None:
    """Object to code of the model's own that would have to run and nobody allowed."""
    support, architecture = engine_support(engine), weights.architecture
    is_needed = architecture not in support.runs or architecture in support.needs_remote_code
    if engine == "llama_cpp" or not weights.has_remote_code or not is_needed:
        return None
    if spec.trust_remote_code:
        return None
    return (
        f"{weights.where} asks {engine} to run Python code from its own folder (auto_map in its "
        f"config). If you have read it and trust it, allow it with TRUST_REMOTE_CODE={spec.name}"
    )


def memory_bound(engine: str, machine: Machine) -> int | None:
    """Return the bytes that weights may take at most with an engine; None where unknown."""
    if engine == "vllm":
        return int(machine.gpu_bytes * _VLLM_SHARE)
    return None if machine.memory_bytes is None else machine.memory_bytes + machine.gpu_bytes


def memory_objection(engine: str, weights: Weights, machine: Machine) -> str | None:
    """Object to weights that are larger than all memory the engine could put them into."""
    bound = memory_bound(engine, machine)
    if bound is None or weights.size_bytes <= bound:
        return None
    place = "its CUDA devices" if engine == "vllm" else "this machine"
    return (
        f"the weights of {weights.where} take {in_gb(weights.size_bytes)}, and {place} "
        f"{'have' if engine == 'vllm' else 'has'} {in_gb(bound)} for them with {engine}"
    )


def memory_warning(engine: str, weights: Weights, machine: Machine) -> str | None:
    """Return a sentence when a model is likely to need more memory than is free, or None."""
    if machine.free_bytes is None or engine == "vllm" or weights.size_bytes == 0:
        return None
    needed, free = running_bytes(weights.size_bytes), machine.free_bytes + machine.gpu_bytes
    if needed <= free:
        return None
    return (
        f"{weights.where} needs about {in_gb(needed)} to run and {in_gb(free)} are free: it may be "
        "very slow, or be ended by the system. A smaller quantisation needs less"
    )
