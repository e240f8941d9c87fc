from __future__ import annotations

import logging
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import adapters.registry as registry_module
from adapters.base import BaseChatAdapter, BaseLLMAdapter
from adapters.builtin.default import DefaultChatAdapter, DefaultLLMAdapter
from adapters.builtin.parlm_tiny import ParlmTinyChatAdapter
from adapters.errors import AmbiguousAdapter, NoAdapter, UnknownAdapter
from adapters.registry import Registry, chat_adapters, find_adapters, llm_adapters


class Family(BaseChatAdapter):
    """Matches its own name."""

    def match(self, model_path: str) -> bool:
        return self.name in model_path


class VicunaChatAdapter(Family):
    pass


class StableVicunaChatAdapter(Family):
    name = "stable-vicuna"
    priority = 1


class LlamaChatAdapter(Family):
    pass


class AnythingChatAdapter(BaseChatAdapter):
    priority = -100

    def match(self, model_path: str) -> bool:
        return True


@pytest.fixture
def registry() -> Registry[BaseChatAdapter]:
    made = Registry(BaseChatAdapter)
    for adapter in (AnythingChatAdapter, VicunaChatAdapter, StableVicunaChatAdapter):
        made.register(adapter)
    made.register(LlamaChatAdapter)
    return made


@pytest.mark.parametrize(
    ("name", "path", "chosen"),
    [
        ("vicuna-13b", "", VicunaChatAdapter),
        ("stable-vicuna-13b", "", StableVicunaChatAdapter),
        ("mine", "/models/vicuna-13b", VicunaChatAdapter),
        ("mine", "/models/vicuna-13b/snapshots/0abc", VicunaChatAdapter),
        ("llama-7b", "/models/vicuna-13b", LlamaChatAdapter),
        ("mine", "/models/from-vicuna/llama-7b", LlamaChatAdapter),
        ("mine", "/models/other", AnythingChatAdapter),
        ("mine", "", AnythingChatAdapter),
    ],
)
def test_resolve(
    registry: Registry[BaseChatAdapter], name: str, path: str, chosen: type[BaseChatAdapter]
) -> None:
    assert type(registry.resolve(name, path)) is chosen


def test_the_built_in_ones_alone(registry: Registry[BaseChatAdapter]) -> None:
    class BuiltInVicunaChatAdapter(Family):
        name = "vicuna"
        priority = -10

    registry.register(BuiltInVicunaChatAdapter)
    assert type(registry.resolve("vicuna")) is VicunaChatAdapter
    assert type(registry.resolve("vicuna", builtin_only=True)) is BuiltInVicunaChatAdapter
    assert type(registry.resolve("llama", builtin_only=True)) is AnythingChatAdapter


def test_a_tie_names_both(registry: Registry[BaseChatAdapter]) -> None:
    with pytest.raises(AmbiguousAdapter, match=r"VicunaChatAdapter and .*LlamaChatAdapter match"):
        registry.resolve("vicuna-on-llama")


def test_nothing_matches() -> None:
    with pytest.raises(NoAdapter, match=r"'gpt'; name one with LLM_ADAPTER"):
        Registry(BaseChatAdapter).resolve("gpt", "/models/gpt")


@pytest.mark.parametrize("name", ["stable-vicuna", "Stable_Vicuna", "STABLEVICUNA"])
def test_by_name(registry: Registry[BaseChatAdapter], name: str) -> None:
    assert isinstance(registry.by_name(name), StableVicunaChatAdapter)


def test_by_name_prefers_the_higher_priority(registry: Registry[BaseChatAdapter]) -> None:
    class Mine(VicunaChatAdapter):
        name = "vicuna"
        priority = 5

    registry.register(Mine)
    assert isinstance(registry.by_name("vicuna"), Mine)


def test_by_name_of_two_equals_is_ambiguous(registry: Registry[BaseChatAdapter]) -> None:
    registry.register(type("Other", (VicunaChatAdapter,), {"name": "vicuna"}))
    with pytest.raises(AmbiguousAdapter):
        registry.by_name("vicuna")


def test_an_unknown_name_gets_a_suggestion(registry: Registry[BaseChatAdapter]) -> None:
    with pytest.raises(UnknownAdapter, match="did you mean 'vicuna'") as raised:
        registry.by_name("vicunna")
    assert "known: anything, llama, stable-vicuna, vicuna" in str(raised.value)


def test_an_unknown_name_like_none_gets_no_suggestion() -> None:
    assert "did you mean" not in str(UnknownAdapter("zzz", ["vicuna"]))


def test_register_twice_changes_nothing(registry: Registry[BaseChatAdapter]) -> None:
    before = len(registry.adapters)
    assert registry.register(VicunaChatAdapter) is VicunaChatAdapter
    assert len(registry.adapters) == before


def test_register_refuses_the_other_kind() -> None:
    with pytest.raises(TypeError, match="VicunaChatAdapter is not a BaseLLMAdapter"):
        Registry(BaseLLMAdapter).register(VicunaChatAdapter)


def test_a_match_that_raises_is_named(registry: Registry[BaseChatAdapter]) -> None:
    registry.register(type("Broken", (BaseChatAdapter,), {}))
    with pytest.raises(NotImplementedError) as raised:
        registry.resolve("x")
    assert "raised by Broken.match('x')" in raised.value.__notes__


def plugin(monkeypatch: pytest.MonkeyPatch, value: str) -> Registry[BaseChatAdapter]:
    def entry_points(group: str) -> list[EntryPoint]:
        return [EntryPoint("mine", value, group)]

    monkeypatch.setattr(registry_module, "entry_points", entry_points)
    return Registry(BaseChatAdapter, "parlm.chat_adapters")


def test_a_plug_in_is_registered_at_the_first_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = plugin(monkeypatch, f"{__name__}:VicunaChatAdapter")
    monkeypatch.setitem(__import__("sys").modules, __name__, _Module())
    assert registry.adapters == []
    assert type(registry.resolve("vicuna")) is VicunaChatAdapter


class _Module:
    VicunaChatAdapter = VicunaChatAdapter


@pytest.mark.parametrize("value", ["no_such_module:X", "os:path_of_nothing", "builtins:int"])
def test_a_broken_plug_in_is_logged_by_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    registry = plugin(monkeypatch, value)
    with caplog.at_level(logging.ERROR):
        assert registry.names() == []
    assert f"the plug-in mine = {value} did not load" in caplog.text


def test_a_plug_in_may_be_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plugin(monkeypatch, "json").names() == []


@pytest.mark.parametrize(
    ("registry", "model", "chosen"),
    [
        (chat_adapters, "parlm-tiny", ParlmTinyChatAdapter),
        (chat_adapters, "some-model", DefaultChatAdapter),
        (llm_adapters, "some-model", DefaultLLMAdapter),
    ],
)
def test_the_built_in_ones(registry: Registry[Any], model: str, chosen: type) -> None:
    assert type(registry.resolve(model)) is chosen


def test_find_adapters_by_matching() -> None:
    load, chat = find_adapters("parlm-tiny-q8", "/models/x.gguf")
    assert (type(load), type(chat)) == (DefaultLLMAdapter, ParlmTinyChatAdapter)


def test_find_adapters_by_a_name_that_only_one_registry_knows() -> None:
    load, chat = find_adapters("other", adapter="parlm-tiny")
    assert (type(load), type(chat)) == (DefaultLLMAdapter, ParlmTinyChatAdapter)


def test_find_adapters_by_an_unknown_name() -> None:
    with pytest.raises(UnknownAdapter, match="did you mean 'parlm-tiny'"):
        find_adapters("other", adapter="parlm_tny")
