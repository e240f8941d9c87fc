"""The four classes of DB-GPT's page on models, run as a user would type them into a file.

Source: docs/modules/llms.md of v0.3.2. The page leaves imports out; they are the first lines here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import adapters
from adapters.base import BaseChatAdapter
from engines.types import Message, ModelDescription, PartsPrompt
from tests.adapters.tiny_models import write_llama

PAGE = '''
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from adapters import BaseChatAdpter, BaseLLMAdaper
from adapters import generate_stream
from pilot.configs.model_config import DEVICE

class VicunaLLMAdapater(BaseLLMAdaper):
    """Vicuna Adapter"""

    def match(self, model_path: str):
        return "vicuna" in model_path

    def loader(self, model_path: str, from_pretrained_kwagrs: dict):
        tokenizer = AutoTokenizer.from_pretrained(model_path, use_fast=False)
        model = AutoModelForCausalLM.from_pretrained(
            model_path, low_cpu_mem_usage=True, **from_pretrained_kwagrs
        )
        return model, tokenizer

class ChatGLMAdapater(BaseLLMAdaper):
    """LLM Adatpter for THUDM/chatglm-6b"""

    def match(self, model_path: str):
        return "chatglm" in model_path

    def loader(self, model_path: str, from_pretrained_kwargs: dict):
        tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=True)

        if DEVICE != "cuda":
            model = AutoModel.from_pretrained(
                model_path, trust_remote_code=True, **from_pretrained_kwargs
            ).float()
            return model, tokenizer
        else:
            model = (
                AutoModel.from_pretrained(
                    model_path, trust_remote_code=True, **from_pretrained_kwargs
                )
                .half()
                .cuda()
            )
            return model, tokenizer

class VicunaChatAdapter(BaseChatAdpter):
    """Model chat Adapter for vicuna"""

    def match(self, model_path: str):
        return "vicuna" in model_path

    def get_generate_stream_func(self):
        return generate_stream

class ChatGLMChatAdapter(BaseChatAdpter):
    """Model chat Adapter for ChatGLM"""

    def match(self, model_path: str):
        return "chatglm" in model_path

    def get_generate_stream_func(self):
        from pilot.model.llm_out.chatglm_llm import chatglm_generate_stream

        return chatglm_generate_stream
'''
PARAMS = {"prompt": "Hi", "temperature": 0, "max_new_tokens": 12}
CHAT = [Message("user", "Hi")]


@pytest.fixture
def page(tmp_path: Path, own_adapters: None) -> None:
    file = tmp_path / "page.py"
    file.write_text(PAGE)
    with pytest.warns(DeprecationWarning, match="is the old spelling"):
        adapters.load_file(file)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_llama(folder / "vicuna-13b")
    write_llama(folder / "chatglm-6b")
    return folder


@pytest.mark.usefixtures("page")
@pytest.mark.parametrize("name", ["vicuna-13b", "chatglm-6b"])
def test_a_class_of_the_page_is_found_and_loads(name: str, models: Path) -> None:
    load = adapters.get_llm_model_adapter(str(models / name))
    assert type(load).__module__.startswith("parlm_user_adapters.page")
    model, tokenizer = load.loader(str(models / name), {})
    assert tokenizer.decode(tokenizer("Hi").input_ids) == "Hi"
    assert next(model.parameters()).dtype.is_floating_point


@pytest.mark.usefixtures("page")
@pytest.mark.parametrize("name", ["vicuna-13b", "chatglm-6b"])
def test_its_cumulative_stream_comes_out_incremental(name: str, models: Path) -> None:
    model, tokenizer = adapters.get_llm_model_adapter("vicuna").loader(str(models / name), {})
    func = adapters.get_llm_chat_adapter(str(models / name)).get_generate_stream_func()
    assert func is not None
    pieces = list(func(model, tokenizer, dict(PARAMS), "cpu", 128))
    so_far = list(adapters.generate_stream(model, tokenizer, dict(PARAMS), "cpu", 128))
    assert len(pieces) > 1
    assert "".join(pieces) == so_far[-1]


@pytest.mark.usefixtures("page")
@pytest.mark.parametrize(
    ("name", "architecture", "prompt"),
    [("vicuna-13b", "llama", " USER: Hi ASSISTANT:"), ("chatglm-6b", "chatglm", "Hi[gMASK]<sop>")],
)
def test_its_prompt_is_the_built_in_family_s(name: str, architecture: str, prompt: str) -> None:
    model = ModelDescription(name, f"/m/{name}", "safetensors", architecture)
    adapter: BaseChatAdapter = adapters.find_adapters(name, model.path)[1].for_model(model)
    rendered = adapter.render(CHAT)
    assert isinstance(rendered, PartsPrompt) and rendered.text.endswith(prompt)
    assert type(adapter).__module__.startswith("parlm_user_adapters.page")
    assert "temperature" in adapter.sampling_defaults
