from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import adapters
from adapters import inherited
from adapters.base import BaseChatAdapter, BaseLLMAdapter
from adapters.errors import UnsupportedChat
from adapters.registry import chat_adapters, llm_adapters
from engines.types import Message, ModelDescription, PartsPrompt, Special, Text, Tool
from tests.adapters.conversation import Conversation

OLD_PAGE = '''
from adapters import BaseChatAdpter, BaseLLMAdaper

class VicunaLLMAdapater(BaseLLMAdaper):
    """Vicuna Adapter"""
    def match(self, model_path: str):
        return "vicuna" in model_path
    def loader(self, model_path: str, from_pretrained_kwagrs: dict):
        return model_path, from_pretrained_kwagrs

class VicunaChatAdapter(BaseChatAdpter):
    def match(self, model_path): return "vicuna" in model_path
    def get_generate_stream_func(self):
        from x import generate_stream
        return generate_stream
'''


def generate_stream(
    model: Any, tokenizer: Any, params: dict[str, Any], device: str, context_len: int
) -> Iterator[str]:
    yield from ("So", "So far", "So far.")


@pytest.fixture
def old_page(monkeypatch: pytest.MonkeyPatch, own_adapters: None) -> dict[str, Any]:
    module = ModuleType("x")
    module.generate_stream = generate_stream  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "x", module)
    names: dict[str, Any] = {"__name__": "old_page"}
    with pytest.warns(DeprecationWarning):
        exec(OLD_PAGE, names)
    return names


def test_a_class_from_the_old_page_yields_only_new_text(old_page: dict[str, Any]) -> None:
    adapters.register_llm_model_chat_adapter(old_page["VicunaChatAdapter"])
    func = adapters.get_llm_chat_adapter("/models/vicuna-13b").get_generate_stream_func()
    assert func is not None
    assert list(func(None, None, {}, "cpu", 1)) == ["So", " far", "."]


def test_a_load_class_from_the_old_page(old_page: dict[str, Any]) -> None:
    adapters.register_llm_model_adapters(old_page["VicunaLLMAdapater"])
    found = adapters.get_llm_model_adapter("/models/vicuna-13b")
    assert found.loader("path", {"a": 1}) == ("path", {"a": 1})


def test_a_subclass_that_calls_its_parent_is_wrapped_once(old_page: dict[str, Any]) -> None:
    base: Any = old_page["VicunaChatAdapter"]

    class Mine(base):  # type: ignore[misc]
        def get_generate_stream_func(self) -> Any:
            return super().get_generate_stream_func()

    assert list(Mine().get_generate_stream_func()(0, 0, {}, "cpu", 1)) == ["So", " far", "."]


def test_a_declared_echo(old_page: dict[str, Any]) -> None:
    base: Any = old_page["VicunaChatAdapter"]

    class Echoing(base):  # type: ignore[misc]
        echoes_prompt = True

    func = Echoing().get_generate_stream_func()
    assert list(func(None, None, {"prompt": "So"}, "cpu", 1)) == [" far", "."]


def test_a_class_may_return_no_function(old_page: dict[str, Any]) -> None:
    base: Any = old_page["BaseChatAdpter"]

    class Usual(base):  # type: ignore[misc]
        def get_generate_stream_func(self) -> Any:
            return None

    assert Usual().get_generate_stream_func() is None


def test_an_adapter_on_the_new_spelling_is_left_alone() -> None:
    class New(BaseChatAdapter):
        def get_generate_stream_func(self) -> Any:
            return generate_stream

    assert New().get_generate_stream_func() is generate_stream


@pytest.mark.parametrize(
    ("name", "base"), [("BaseLLMAdaper", BaseLLMAdapter), ("BaseChatAdpter", BaseChatAdapter)]
)
def test_the_old_spellings_warn(name: str, base: type) -> None:
    with pytest.warns(DeprecationWarning, match=f"{name} is the old spelling of {base.__name__}"):
        assert issubclass(getattr(adapters, name), base)


def test_the_old_lists_are_the_registries() -> None:
    assert adapters.llm_model_adapters is llm_adapters.adapters
    assert adapters.llm_model_chat_adapters is chat_adapters.adapters


class Speaking(inherited.BaseChatAdpter):
    """Writes prompts by a conversation of DB-GPT's kind."""

    def match(self, model_path: str) -> bool:
        return True

    def get_conv_template(self) -> Any:
        return Conversation()


CHAT = [Message("developer", "S2."), Message("user", "Hi </s>"), Message("assistant", "Yo")]


def test_a_conversation_writes_the_prompt() -> None:
    adapter = Speaking().for_model(ModelDescription("m", "/m", "gguf"))
    assert adapter.render(CHAT) == PartsPrompt(
        (
            Special("<s>"), Text("S2. USER: Hi </s> ASSISTANT: Yo"), Special("</s>"),
            Text(" ASSISTANT:"),
        ),
        add_bos=False,
        stop=("###",),
    )  # fmt: skip


def test_a_conversation_s_special_tokens_are_the_model_s() -> None:
    model = ModelDescription("m", "/m", "gguf", special_tokens=("</s>",))
    prompt = Speaking().for_model(model).render(CHAT)
    assert isinstance(prompt, PartsPrompt)
    assert prompt.parts[0] == Text("<s>S2. USER: Hi </s> ASSISTANT: Yo")
    assert prompt.add_bos
    with pytest.raises(UnsupportedChat, match="no form for tools"):
        Speaking().render(CHAT, [Tool("f")])


def test_model_adaptation() -> None:
    messages = [{"role": "human", "content": "Hi"}, {"role": "ai", "content": "Yo"}]
    given = {"messages": messages, "temperature": 0.5}
    params, context = Speaking().model_adaptation(given)
    prompt = "<s>S. USER: Hi ASSISTANT: Yo</s> ASSISTANT:"
    assert params == {**given, "prompt": prompt, "stop": "###"}
    assert context == {"prompt_echo_len_char": len(prompt) - len("<s></s>")}


def test_model_adaptation_without_messages_or_template() -> None:
    params: dict[str, Any] = {"prompt": "x", "messages": [{"role": "robot"}]}
    assert Speaking().model_adaptation({"prompt": "x"}) == (
        {"prompt": "x"},
        {"prompt_echo_len_char": -1},
    )
    assert inherited.BaseChatAdpter().model_adaptation(params) == (
        params,
        {"prompt_echo_len_char": -1},
    )
    with pytest.raises(KeyError):
        Speaking().model_adaptation({"messages": [{"role": "human"}]})


@pytest.mark.parametrize("name", inherited.FAMILY_CLASSES)
def test_the_families_classes_by_their_old_names(name: str) -> None:
    base = BaseChatAdapter if "Chat" in name.replace("ChatGLM", "", 1) else BaseLLMAdapter
    assert issubclass(getattr(inherited, name), base)
    assert getattr(adapters, name) is getattr(inherited, name)


def test_spellings_are_of_one_class() -> None:
    assert inherited.VicunaLLMAdapater is inherited.VicunaLLMAdapter
    assert inherited.ChatGLMAdapater is inherited.ChatGLMAdapter
    with pytest.raises(AttributeError, match="no attribute 'KoalaAdapter'"):
        inherited.KoalaAdapter  # noqa: B018
