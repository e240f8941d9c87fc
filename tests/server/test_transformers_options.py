"""What the transformers engine is told of adapters and settings, up to an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters import BaseChatAdapter, BaseLLMAdapter, chat_adapters, llm_adapters
from adapters.builtin.default import DefaultChatAdapter, DefaultLLMAdapter
from engines.types import GenerationRequest, Message, SamplingParams, TextDelta
from server.bootstrap import build_models
from server.settings import Settings, SettingsError
from server.transformers_options import transformers_options
from tests.engines.tiny_folder import write_tiny_folder

# As on DB-GPT's page: positions, a misspelt parameter, the whole text each time.
ADAPTERS = """
from adapters import BaseChatAdpter, BaseLLMAdaper


class LetterLLMAdapter(BaseLLMAdaper):
    def match(self, model_path):
        return "letters" in model_path

    def loader(self, model_path, from_pretrained_kwagrs):
        return "a model", None


def generate(model, tokenizer, params, device, context_len):
    for end in range(1, 4):
        yield f"{model} says abc"[: 12 + end]


class LetterChatAdapter(BaseChatAdpter):
    def match(self, model_path):
        return "letters" in model_path

    def get_generate_stream_func(self):
        return generate

    def render(self, messages, tools=()):
        from adapters import PartsPrompt, Text

        return PartsPrompt((Text(messages[-1].content),))
"""


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def options(**values: Any) -> dict[str, Any]:
    return transformers_options(DefaultLLMAdapter(), DefaultChatAdapter(), settings(**values))


def test_adapters_are_told_by_name() -> None:
    found = options()
    assert found["loader"] == "adapters.builtin.default:DefaultLLMAdapter.loader"
    assert found["stream"] is None
    assert found["run_first"] == ()


def test_a_function_of_ones_own_is_told_without_being_called() -> None:
    class Own(BaseChatAdapter):
        def get_generate_stream_func(self) -> Any:
            raise AssertionError("its imports belong into the child")

    class Load(BaseLLMAdapter):
        pass

    found = transformers_options(Load(), Own(), settings())
    assert found["stream"].endswith("Own.get_generate_stream_func")


@pytest.mark.parametrize(
    ("given", "quantize"),
    [
        ({}, None),
        ({"quantize_8bit": True}, "8bit"),
        ({"quantize_4bit": True}, "4bit"),
        ({"quantize_8bit": True, "quantize_4bit": True}, "4bit"),
    ],
)
def test_quantisation(given: dict[str, bool], quantize: str | None) -> None:
    assert options(**given)["quantize"] == quantize


def test_gpus() -> None:
    found = options(num_gpus=2, max_gpu_memory="16Gib", cuda_visible_devices="1,2")
    assert (found["num_gpus"], found["max_gpu_memory"]) == (2, "16Gib")
    assert found["cuda_visible_devices"] == "1,2"


def test_an_engine_that_cannot_read_the_weights_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    folder = write_tiny_folder(tmp_path / "tiny")
    given = {"llm_model": "tiny", "llm_model_path": folder, "llm_engine": "llama_cpp"}
    with pytest.raises(SettingsError, match="llama_cpp reads GGUF files"):
        build_models(settings(**given))


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:.*old spelling:DeprecationWarning")
async def test_an_adapter_file_and_its_function_run_in_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    for registry in (llm_adapters, chat_adapters):
        registry.names()  # loads the built-in ones, which must not land in the list below
        monkeypatch.setattr(registry, "adapters", list(registry.adapters))
    folder = write_tiny_folder(tmp_path / "letters")
    file = tmp_path / "own_adapters.py"
    file.write_text(ADAPTERS)
    models = build_models(
        settings(llm_model="letters", llm_model_path=folder, adapter_files=(file,))
    )
    model = models.find("letters")
    assert model.engine.name == "transformers"
    assert "safetensors" in model.reason
    prompt = model.adapter.render([Message("user", "hello")])
    request = GenerationRequest("a", prompt, SamplingParams(max_tokens=20))
    await model.engine.start()
    try:
        events = [event async for event in model.engine.generate(request)]
    finally:
        await model.engine.aclose()
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "a model says abc"[:15]
