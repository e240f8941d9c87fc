from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.base import BaseChatAdapter, BaseLLMAdapter, family_name
from adapters.filters import FilteredText
from adapters.parsing import PlainText
from adapters.registry import chat_adapters
from engines.types import Message, MessagesPrompt, ModelDescription, PartsPrompt, Tool

GGUF = ModelDescription("m", "/m.gguf", "gguf", special_tokens=("<|im_start|>", "<|im_end|>"))
CHAT = [Message("user", "Hi")]


@pytest.mark.parametrize(
    ("class_name", "name"),
    [
        ("VicunaChatAdapter", "vicuna"),
        ("VicunaLLMAdapater", "vicuna"),
        ("ChatGLMChatAdapter", "chatglm"),
        ("ChatGLMAdapater", "chatglm"),
        ("GPT4AllAdapter", "gpt4all"),
        ("MyChatAdpter", "my"),
        ("MyLLMAdaper", "my"),
        ("ChatAdapter", "chatadapter"),
        ("Mine", "mine"),
    ],
)
def test_family_name(class_name: str, name: str) -> None:
    assert family_name(class_name) == name


def test_a_class_may_name_itself() -> None:
    class VicunaChatAdapter(BaseChatAdapter):
        name = "other"

    class KoalaChatAdapter(VicunaChatAdapter):
        pass

    assert (VicunaChatAdapter.name, KoalaChatAdapter.name) == ("other", "koala")


@pytest.mark.parametrize("base", [BaseLLMAdapter, BaseChatAdapter])
def test_match_is_required(base: type[BaseLLMAdapter | BaseChatAdapter]) -> None:
    with pytest.raises(NotImplementedError, match="does not implement match"):
        base().match("x")


def test_loader_is_required_of_those_that_load() -> None:
    with pytest.raises(NotImplementedError, match="BaseLLMAdapter does not implement loader"):
        BaseLLMAdapter().loader("x", {})


def test_defaults_of_a_chat_adapter() -> None:
    adapter = BaseChatAdapter()
    assert adapter.get_generate_stream_func() is None
    assert adapter.render(CHAT, [Tool("f")]) == MessagesPrompt((*CHAT,), (Tool("f"),))
    assert isinstance(adapter.output_parser(), PlainText)


def test_a_model_without_files_gets_messages() -> None:
    adapter = BaseChatAdapter()
    assert adapter.for_model(ModelDescription("echo")) is adapter


def test_an_adapter_without_render_speaks_the_model_s_template() -> None:
    adapter = BaseChatAdapter()
    bound = adapter.for_model(GGUF)
    prompt = bound.render(CHAT)
    assert isinstance(prompt, PartsPrompt)
    assert prompt.text.startswith("<|im_start|>user\nHi")
    assert isinstance(bound.output_parser(), PlainText)
    assert isinstance(adapter.render(CHAT), MessagesPrompt)


def test_an_adapter_with_render_speaks_for_itself() -> None:
    class Own(BaseChatAdapter):
        def render(self, messages: object, tools: object = ()) -> PartsPrompt:
            return PartsPrompt(())

    adapter = Own()
    assert adapter.for_model(GGUF) is adapter


def test_an_adapter_without_render_speaks_as_the_family_does_otherwise() -> None:
    class Mine(BaseChatAdapter):
        sampling_defaults = {"top_p": 0.5}

    model = ModelDescription("vicuna-13b", "/m", "gguf", "llama")
    bound = Mine().for_model(model)
    prompt = bound.render(CHAT)
    assert isinstance(prompt, PartsPrompt) and prompt.text.endswith("USER: Hi ASSISTANT:")
    assert isinstance(bound.output_parser(), FilteredText)
    assert bound.sampling_defaults == {"temperature": 0.7, "top_p": 0.5}
    assert Mine.sampling_defaults == {"top_p": 0.5}


@pytest.mark.usefixtures("own_adapters")
def test_files_may_tell_a_family() -> None:
    @chat_adapters.register
    class OwlChatAdapter(BaseChatAdapter):
        def match(self, model_path: str) -> bool:
            return False

        def match_files(self, model: ModelDescription) -> bool:
            return model.architecture == "owl"

        def render(self, messages: object, tools: object = ()) -> PartsPrompt:
            return PartsPrompt((), stop=("hoo",))

    model = ModelDescription("m", "/m", "gguf", "owl")
    prompt = chat_adapters.resolve("m").for_model(model).render(CHAT)
    assert prompt == PartsPrompt((), stop=("hoo",))
    with_template = replace(model, chat_template="{{ messages[0].content }}")
    prompt = chat_adapters.resolve("m").for_model(with_template).render(CHAT)
    assert isinstance(prompt, PartsPrompt) and prompt.text == "Hi"
