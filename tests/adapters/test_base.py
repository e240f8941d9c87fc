from __future__ import annotations

import pytest

from adapters.base import BaseChatAdapter, BaseLLMAdapter, family_name
from adapters.parsing import PlainText
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
