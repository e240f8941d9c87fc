"""What a model of the catalogue would run with on this machine, before anything is downloaded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from server.catalog import Catalog, CatalogEntry
from server.engine_choice import (
    Weights,
    WeightsFormat,
    memory_bound,
    objection,
    unavailability,
)
from server.machine import Machine
from server.memory import in_gb, running_bytes, weights_bytes
from server.model_specs import PROXY, ModelSpec

PROXY_ENGINE = "proxy"
DEFAULT_QUANT = "Q4_K_M"
# What GGUF repositories usually hold, the best first.
QUANTS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")


@dataclass(frozen=True, slots=True)
class Build:
    """One form in which a model can be had. `quant` is a name of `BITS_PER_WEIGHT`."""

    format: WeightsFormat
    quant: str
    weights: Weights

    @property
    def running_bytes(self) -> int:
        """Memory it needs to run, in bytes."""
        return running_bytes(self.weights.size_bytes)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would run a model here: `engine` and `build`, or neither and `reason` why not.

    `to_install` names what is missing for an engine that could run it.
    """

    engine: str | None
    build: Build | None
    reason: str
    to_install: str | None = None


def outlook(entry: CatalogEntry, machine: Machine, registered: Collection[str]) -> Outlook:
    """Return the best way to run an entry here; engines that are installed come first."""
    if entry.name == PROXY:
        missing = unavailability(PROXY_ENGINE, machine, registered)
        return Outlook(PROXY_ENGINE, None, "forwarded to a service", missing)
    able: list[Outlook] = []
    objections: list[str] = []
    for engine, build in _ways(entry, machine):
        # Code of a model's own is asked about when it is served, not when it is listed.
        spec = ModelSpec(name=entry.name, trust_remote_code=True)
        found = _tightness(engine, build, machine)
        found = found or objection(engine, build.weights, machine, spec)
        if found is not None:
            objections.append(found)
            continue
        missing = unavailability(engine, machine, registered)
        able.append(Outlook(engine, build, _summary(build), missing))
    if not able:
        return Outlook(None, None, "; ".join(dict.fromkeys(objections)))
    return next((way for way in able if way.to_install is None), able[0])


def _ways(entry: CatalogEntry, machine: Machine) -> Sequence[tuple[str, Build]]:
    """Engine and build, in the order of the choice of engines."""
    ways: list[tuple[str, Build]] = []
    if entry.repo and machine.gpus:
        ways.append(("vllm", safetensors_build(entry)))
    if entry.gguf:
        ways.append(("llama_cpp", gguf_build(entry, DEFAULT_QUANT)))
    if entry.url:
        ways.append(("llama_cpp", file_build(entry)))
    if entry.repo:
        ways.append(("transformers", safetensors_build(entry)))
    return ways


def _tightness(engine: str, build: Build, machine: Machine) -> str | None:
    """Object to what would not fit with a context beside it, before it is downloaded."""
    bound = memory_bound(engine, machine)
    if bound is None or build.running_bytes <= bound:
        return None
    needed = in_gb(build.running_bytes)
    return f"{build.format} {build.quant} needs about {needed} with {engine}, of {in_gb(bound)}"


def safetensors_build(entry: CatalogEntry) -> Build:
    """The weights as their authors publish them: 16 bits each."""
    size = weights_bytes(entry.parameters, "F16")
    weights = Weights(entry.repo or "", "safetensors", entry.architecture, size)
    return Build("safetensors", "F16", weights)


def gguf_build(entry: CatalogEntry, quant: str) -> Build:
    """A GGUF file of the model in a quantisation."""
    architecture = entry.gguf_architecture or entry.architecture
    size = weights_bytes(entry.parameters, quant)
    return Build("gguf", quant, Weights(entry.gguf or "", "gguf", architecture, size))


def file_build(entry: CatalogEntry) -> Build:
    """The one file at the entry's address."""
    weights = Weights(entry.url or "", "ggml", entry.architecture, entry.size or 0)
    return Build("ggml", entry.quant or "F16", weights)


def _summary(build: Build) -> str:
    return f"{build.format} {build.quant}, about {in_gb(build.running_bytes)} to run"


def nearest(entry: CatalogEntry | None, machine: Machine, catalog: Catalog) -> str:
    """Return a sentence about what fits into this machine's memory when a model does not.

    A smaller quantisation of the same model, else the largest model of the catalogue.
    """
    if entry is not None and entry.gguf and (quant := _largest_quant(entry, machine)):
        size = in_gb(gguf_build(entry, quant).running_bytes)
        return (
            f"A {quant} GGUF of it needs about {size}: `parlm pull {entry.name} --quant {quant}`."
        )
    fitting = [e for e in catalog if e.gguf and _fits(gguf_build(e, DEFAULT_QUANT), machine)]
    if not fitting:
        return "The built-in model runs anywhere: LLM_MODEL=parlm-tiny."
    # Of the same architecture if there is one: it is the likelier replacement.
    alike = [e for e in fitting if entry is not None and e.architecture == entry.architecture]
    best = max(alike or fitting, key=lambda e: e.parameters)
    size = in_gb(gguf_build(best, DEFAULT_QUANT).running_bytes)
    return (
        f"The largest known model that fits is {best.name} as a {DEFAULT_QUANT} GGUF, which needs "
        f"about {size}: `parlm pull {best.name}`."
    )


def _largest_quant(entry: CatalogEntry, machine: Machine) -> str | None:
    return next((q for q in QUANTS if _fits(gguf_build(entry, q), machine)), None)


def _fits(build: Build, machine: Machine) -> bool:
    if machine.memory_bytes is None:
        return False
    return build.running_bytes <= machine.memory_bytes + machine.gpu_bytes
