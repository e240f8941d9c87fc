"""Which engine runs what, and how a refusal reads."""

from __future__ import annotations

import pytest

from engines.types import ModelDescription
from server.engine_choice import (
    Weights,
    WeightsFormat,
    choose_engine,
    memory_warning,
    weights_of,
)
from server.machine import Machine
from server.memory import GB
from server.model_specs import ModelSpec
from server.settings import EngineName, SettingsError
from tests.server.machines import ENGINES, GPU_SERVER, LAPTOP, MAC, SERVER, gpu, machine


def weights(
    architecture: str = "llama",
    format: WeightsFormat = "safetensors",
    gigabytes: int = 13,
    has_remote_code: bool = False,
) -> Weights:
    return Weights("/data/m", format, architecture, gigabytes * GB, has_remote_code)


def choose(
    given: Weights,
    on: Machine = SERVER,
    engine: EngineName = "auto",
    name: str = "m",
    registered: frozenset[str] = ENGINES,
    trust: bool = False,
) -> tuple[str, str]:
    spec = ModelSpec(name=name, engine=engine, trust_remote_code=trust)
    choice = choose_engine(spec, given, on, registered, "Take a smaller one.")
    return choice.engine, choice.reason


def refusal(
    given: Weights, on: Machine = SERVER, engine: EngineName = "auto", name: str = "m"
) -> str:
    with pytest.raises(SettingsError) as caught:
        choose(given, on, engine, name)
    return str(caught.value)


@pytest.mark.parametrize("on", [LAPTOP, MAC, SERVER, GPU_SERVER])
@pytest.mark.parametrize("format", ["gguf", "ggml"])
def test_a_gguf_or_ggml_file_runs_on_llama_cpp_everywhere(
    on: Machine, format: WeightsFormat
) -> None:
    engine, reason = choose(weights(format=format, gigabytes=4), on)
    assert engine == "llama_cpp"
    assert format.upper() in reason


def test_proxyllm_is_forwarded() -> None:
    assert choose(Weights("", "none"), name="proxyllm")[0] == "proxy"
    assert choose(Weights("", "none"), engine="proxy") == ("proxy", "LLM_ENGINE names it")


def test_echo_needs_nothing() -> None:
    assert choose(Weights("", "none"), machine(installed=frozenset()), name="echo")[0] == "echo"


def test_cuda_and_a_family_of_vllm() -> None:
    engine, reason = choose(weights("llama"), GPU_SERVER)
    assert engine == "vllm"
    assert "NVIDIA A100 with 80.0 GB" in reason


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("t5", "encoder-decoder"),
        ("mpt", "removed MPT"),
        ("chatglm-v1", "ChatGLM2 and later"),
        ("codegen", "does not run CodeGen"),
        ("nobody-knows-it", "does not know the architecture 'nobody-knows-it'"),
    ],
)
def test_what_vllm_does_not_run_runs_on_transformers(architecture: str, why: str) -> None:
    engine, reason = choose(weights(architecture), GPU_SERVER)
    assert engine == "transformers"
    assert why in reason


def test_safetensors_without_cuda_run_on_transformers() -> None:
    assert choose(weights(), SERVER)[0] == "transformers"
    assert "no CUDA device" in choose(weights(), MAC)[1]


@pytest.mark.parametrize("engine", ["llama_cpp", "vllm", "transformers"])
def test_an_engine_that_is_named_is_taken(engine: EngineName) -> None:
    format: WeightsFormat = "gguf" if engine == "llama_cpp" else "safetensors"
    assert choose(weights(format=format), engine=engine) == (engine, "LLM_ENGINE names it")


def test_a_named_engine_may_run_what_this_version_does_not_know() -> None:
    assert choose(weights("brand-new"), GPU_SERVER, "vllm")[0] == "vllm"


def test_a_named_engine_is_not_bound_by_memory() -> None:
    """Its own options may spread the weights over several machines."""
    assert choose(weights(gigabytes=800), GPU_SERVER, "vllm")[0] == "vllm"


@pytest.mark.parametrize(
    ("engine", "given", "why"),
    [
        ("vllm", weights("chatglm-v1"), "LLM_ENGINE=transformers does"),
        ("vllm", weights("t5"), "no encoder-decoder models"),
        ("vllm", weights("mpt"), "removed MPT after version 0.28"),
        ("llama_cpp", weights("t5", "gguf"), "encoder-decoder"),
        ("llama_cpp", weights("t5"), "LLM_ENGINE=transformers does"),
        ("llama_cpp", weights("chatglm-v1"), "LLM_ENGINE=transformers does"),
        ("llama_cpp", weights("gptj", "gguf"), "no code for it"),
        ("llama_cpp", weights("brand-new", "gguf"), "'brand-new' of /data/m"),
        ("transformers", weights(format="gguf"), "set LLM_ENGINE=llama_cpp"),
        ("vllm", weights(format="gguf"), "set LLM_ENGINE=llama_cpp"),
        ("llama_cpp", weights(), "parlm pull m --quant Q4_K_M"),
    ],
)
def test_what_an_engine_cannot_read_is_refused(
    engine: EngineName, given: Weights, why: str
) -> None:
    message = refusal(given, GPU_SERVER, engine)
    assert message.startswith(f"LLM_ENGINE={engine}: ")
    assert why in message


@pytest.mark.parametrize("architecture", ["t5", "gptj", "brand-new"])
def test_a_gguf_file_llama_cpp_does_not_run_is_refused(architecture: str) -> None:
    assert "llama" in refusal(weights(architecture, "gguf")).lower()


def test_falcon_40b_on_a_laptop() -> None:
    message = refusal(weights("falcon", gigabytes=83), LAPTOP, name="falcon-40b")
    assert "take 83.0 GB" in message
    assert "has 16.0 GB" in message
    assert message.endswith("Take a smaller one.")


def test_what_is_too_large_for_the_device_may_fit_beside_it() -> None:
    small = machine(64, gpus=(gpu(24),))
    engine, reason = choose(weights(gigabytes=30), small)
    assert engine == "transformers"
    assert "30.0 GB" in reason
    assert "21.6 GB" in reason


def test_memory_that_the_system_does_not_tell_refuses_nothing() -> None:
    assert choose(weights(gigabytes=800), machine(None))[0] == "transformers"


@pytest.mark.parametrize(
    ("engine", "format", "command"),
    [
        ("vllm", "safetensors", "pip install '.[vllm]'"),
        ("transformers", "safetensors", "pip install '.[transformers]'"),
        ("llama_cpp", "gguf", "make install"),
    ],
)
def test_an_engine_that_is_not_installed_says_how(
    engine: EngineName, format: WeightsFormat, command: str
) -> None:
    bare = machine(installed=frozenset())
    assert command in refusal(weights(format=format), bare, engine)


def test_an_engine_that_is_missing_gives_way() -> None:
    on = machine(256, gpus=(gpu(80),), installed=ENGINES - {"vllm"})
    engine, reason = choose(weights(), on)
    assert engine == "transformers"
    assert "pip install '.[vllm]'" in reason


def test_the_best_engine_is_named_when_none_is_installed() -> None:
    on = machine(256, gpus=(gpu(80),), installed=frozenset())
    assert "pip install '.[vllm]'" in refusal(weights(), on)


def test_an_engine_this_version_does_not_have() -> None:
    with pytest.raises(SettingsError, match="'vllm' is not in this version"):
        choose(weights(), engine="vllm", registered=frozenset({"echo", "llama_cpp"}))
    with pytest.raises(SettingsError, match="'transformers' is not in this version"):
        choose(weights(), registered=frozenset({"echo", "llama_cpp"}))


def test_code_of_a_models_own_runs_only_when_it_is_allowed() -> None:
    given = weights("homemade", has_remote_code=True)
    message = refusal(given, name="org/homemade")
    assert "/data/m" in message
    assert "TRUST_REMOTE_CODE=org/homemade" in message
    assert "TRUST_REMOTE_CODE" in refusal(given, engine="transformers")
    assert choose(given, trust=True)[0] == "transformers"


def test_code_that_nothing_needs_is_no_reason_to_refuse() -> None:
    """Falcon's config names code that every engine has of its own by now."""
    assert choose(weights("falcon", has_remote_code=True), GPU_SERVER)[0] == "vllm"


def test_the_tokenizer_of_chatglm2_is_code_to_vllm_only() -> None:
    given = weights("chatglm", has_remote_code=True)
    assert choose(given, GPU_SERVER, trust=True)[0] == "vllm"
    engine, reason = choose(given, GPU_SERVER)
    assert engine == "transformers"
    assert "TRUST_REMOTE_CODE" in reason


def test_what_the_files_say() -> None:
    described = ModelDescription(
        name="m",
        path="/data/m",
        format="safetensors",
        architecture="chatglm",
        variant="v1",
        size_bytes=12 * GB,
        parameters=6 * GB,
        has_remote_code=True,
    )
    assert weights_of(described) == Weights("/data/m", "safetensors", "chatglm-v1", 12 * GB, True)
    assert weights_of(described, "NF4").size_bytes == pytest.approx(6 * GB * 4.5 / 8)


def test_tight_memory_is_said() -> None:
    tight = machine(16, free=10)
    assert "about 12.0 GB to run" in (
        memory_warning("llama_cpp", weights(gigabytes=10), tight) or ""
    )
    assert memory_warning("llama_cpp", weights(gigabytes=8), tight) is None
    assert memory_warning("llama_cpp", weights(gigabytes=8), machine(16)) is None
