from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import adapters
from adapters.base import BaseChatAdapter, BaseLLMAdapter
from adapters.registry import chat_adapters, llm_adapters

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
