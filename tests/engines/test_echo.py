from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any

import pytest

from engines.base import Engine, HasContextLength, Tokenizes
from engines.echo import EchoEngine, EchoState
from engines.echo_reply import split_pieces, token_id
from engines.errors import (
    ContextLengthExceeded,
    EngineCrashed,
    EngineOverloaded,
    EngineUnavailable,
    ModelLoadError,
    UnsupportedParameter,
)
from engines.registry import create_engine
from engines.types import (
    Constraint,
    GenerationRequest,
    Grammar,
    JsonObject,
    JsonSchema,
    Message,
    MessagesPrompt,
    OneOf,
    Regex,
    TokensPrompt,
)
from tests.engines.driving import ask, collect, finishes, first_event, stream, text_of, usage_of

pytestmark = pytest.mark.anyio


async def started(**options: Any) -> EchoEngine:
    engine = EchoEngine(**options)
    await engine.start()
    return engine


async def test_is_an_engine_by_its_name() -> None:
    engine: Engine = create_engine("echo", tokens_per_second=5)
    assert isinstance(engine, EchoEngine)
    assert isinstance(engine, Tokenizes)
    assert isinstance(engine, HasContextLength)


async def test_answers_with_the_last_user_message() -> None:
    messages = (Message("user", "first"), Message("assistant", "no"), Message("user", "and last"))
    request = GenerationRequest("r", MessagesPrompt(messages))
    assert text_of(await collect(await started(), request)) == "and last"


async def test_answers_with_the_text_of_a_prompt_and_the_ids_of_tokens() -> None:
    engine = await started()
    assert text_of(await collect(engine, ask("füñf 世界 ok\n"))) == "füñf 世界 ok\n"
    request = GenerationRequest("r", TokensPrompt((5, 17)))
    assert text_of(await collect(engine, request)) == " 5 17"
    assert text_of(await collect(engine, ask(""))) == ""


async def test_streams_word_pieces() -> None:
    assert split_pieces("a  reasonable\nword ") == ["a", "  reason", "able", "\nword", " "]
    events = await collect(await started(), ask("two words"))
    assert [event.text for event in events[:-2]] == ["two", " words"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("sampling", "text", "reason"),
    [
        ({}, "one two three", "stop"),
        ({"max_tokens": 3}, "one two three", "stop"),
        ({"max_tokens": 2}, "one two", "length"),
        ({"stop": ("thr",)}, "one two ", "stop"),
        ({"stop": ("e two", "three")}, "on", "stop"),
        ({"stop": ("three",), "max_tokens": 2}, "one two", "length"),
        ({"stop_token_ids": (token_id(" two"),)}, "one", "stop"),
        ({"max_tokens": 5, "ignore_eos": True}, "one two threeone two", "length"),
        ({"min_tokens": 4}, "one two threeone", "stop"),
    ],
)
async def test_ends_as_the_sampling_says(sampling: Any, text: str, reason: str) -> None:
    events = await collect(await started(), ask("one two three", **sampling))
    assert text_of(events) == text
    assert finishes(events) == {0: reason}
    assert usage_of(events).completion_tokens == len(split_pieces(text)) or "stop" in sampling


@pytest.mark.parametrize(
    "sampling",
    [
        {"logprobs": 0},
        {"logit_bias": ((1, 2.0),)},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5},
        {"repetition_penalty": 1.1},
    ],
)
async def test_refuses_what_it_cannot_honour(sampling: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        await collect(await started(), ask(**sampling))
    assert caught.value.param in sampling


@pytest.mark.parametrize(
    "constraint",
    [
        JsonSchema("{}"),
        JsonObject(),
        Regex("a", "guided_regex"),
        OneOf(("a",)),
        Grammar('root ::= "a"'),
    ],
)
async def test_refuses_a_constraint_by_the_field_that_asked_for_it(constraint: Constraint) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        await collect(await started(), ask(constraint=constraint))
    assert caught.value.param == constraint.param


async def test_refuses_what_does_not_fit() -> None:
    engine = await started(context_length=4)
    assert await collect(engine, ask("a b", max_tokens=2))
    for request in (ask("a b", max_tokens=3), ask("a b c d")):
        with pytest.raises(ContextLengthExceeded):
            await collect(engine, request)


async def test_state_shows_running_and_aborted_requests() -> None:
    engine = await started()
    request = ask("a b c")
    async with stream(engine, request) as events:
        await anext(events)
        assert engine.state == EchoState((request.request_id,), ())
    assert engine.state == EchoState((), (request.request_id,))
    await collect(engine, ask())
    assert engine.state == EchoState((), (request.request_id,))


async def test_takes_the_time_it_is_told_to() -> None:
    engine = await started(tokens_per_second=50, prefill_seconds=0.1)
    begun = time.monotonic()
    await first_event(engine, ask("a b"))
    assert time.monotonic() - begun > 0.11


async def test_refuses_more_requests_than_it_may_run() -> None:
    engine = await started(max_requests=1)
    async with stream(engine, ask("a b")) as events:
        await anext(events)
        with pytest.raises(EngineOverloaded):
            await collect(engine, ask())
    assert await collect(engine, ask())


async def test_crashes_where_it_is_told_to() -> None:
    engine = await started(crash_at=1, fault_trigger="boom")
    async with stream(engine, ask("boom boom")) as events:
        await anext(events)
        with pytest.raises(EngineCrashed):
            await anext(events)
    assert await collect(engine, ask("quiet words"))


async def test_hangs_where_it_is_told_to_until_it_is_closed() -> None:
    engine = await started(hang_at=1)
    async with stream(engine, ask("a b")) as events:
        await anext(events)
        hanging = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        assert not hanging.done()
        await engine.aclose()
        with pytest.raises(EngineUnavailable):
            await hanging


async def test_loading_takes_its_time_and_fails_when_told_to() -> None:
    async with aclosing(EchoEngine(load_seconds=0.05)) as engine:
        starting = asyncio.ensure_future(engine.start())
        await asyncio.sleep(0.01)
        assert engine.health().detail == "loading"
        await starting
        assert engine.health().is_ready
    failing = EchoEngine(fail_load=True)
    with pytest.raises(ModelLoadError):
        await failing.start()
    assert not failing.health().is_ready
