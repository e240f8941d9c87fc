"""What every engine must do, whatever runs below it (the contract of `engines.base.Engine`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from engines.base import Engine, HasContextLength, Tokenizes
from engines.errors import ContextLengthExceeded, EngineUnavailable, InvalidRequest
from engines.types import Finish, PartsPrompt, Text, TextDelta, Usage
from tests.engines.contract import CASES, MAX_REQUESTS, Case
from tests.engines.driving import ask, collect, finishes, first_event, stream, text_of, usage_of

pytestmark = pytest.mark.anyio

LONG = "one two three four five six seven eight nine ten "


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.id)
def case(request: pytest.FixtureRequest) -> Case:
    value: Case = request.param
    return value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="module")
async def engine(case: Case, folder: Path) -> AsyncIterator[Engine]:
    """One engine for all tests: what one of them leaves behind, the next would find."""
    engine = case.build(folder)
    await engine.start()
    yield engine
    await engine.aclose()


async def test_deltas_then_a_finish_per_choice_then_usage(engine: Engine) -> None:
    events = await collect(engine, ask(LONG, max_tokens=8))
    kinds = [type(event) for event in events]
    assert kinds[-1] is Usage
    assert kinds[-2] is Finish
    assert set(kinds[:-2]) == {TextDelta}


async def test_usage_counts_prompt_and_answer(engine: Engine) -> None:
    request = ask(LONG, max_tokens=6, ignore_eos=True)
    usage = usage_of(await collect(engine, request))
    assert isinstance(engine, Tokenizes)
    assert usage.prompt_tokens == len(await engine.tokenize(request.prompt))
    assert usage.completion_tokens == 6


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_max_tokens_ends_an_answer_with_length(engine: Engine, limit: int) -> None:
    events = await collect(engine, ask(LONG, max_tokens=limit, ignore_eos=True))
    assert finishes(events) == {0: "length"}
    assert usage_of(events).completion_tokens == limit


async def test_a_stop_string_ends_an_answer_and_is_not_in_it(engine: Engine) -> None:
    whole = text_of(await collect(engine, ask(LONG, max_tokens=12, ignore_eos=True)))
    stop = whole[len(whole) // 2 :][:4]
    events = await collect(engine, ask(LONG, max_tokens=12, ignore_eos=True, stop=(stop,)))
    assert finishes(events) == {0: "stop"}
    assert text_of(events) == whole[: whole.index(stop)]


async def test_a_prompts_own_stop_ends_an_answer(engine: Engine) -> None:
    request = ask(LONG, max_tokens=12, ignore_eos=True)
    whole = text_of(await collect(engine, request))
    stop = whole[len(whole) // 2 :][:4]
    prompt = PartsPrompt((Text(LONG),), stop=(stop,))
    events = await collect(engine, type(request)("own-stop", prompt, request.sampling))
    assert text_of(events) == whole[: whole.index(stop)]


async def test_every_choice_ends_once_and_usage_adds_up(engine: Engine) -> None:
    events = await collect(engine, ask(LONG, max_tokens=5, n=3, ignore_eos=True))
    assert finishes(events) == {0: "length", 1: "length", 2: "length"}
    assert usage_of(events).completion_tokens == 15
    assert all(text_of(events, index) for index in range(3))


async def test_requests_at_once_do_not_mix(engine: Engine) -> None:
    prompts = [f"{word} " * 4 + LONG for word in ("fox", "dog", "sun", "story")]
    requests = [ask(prompt, max_tokens=10) for prompt in prompts]
    alone = [await collect(engine, request) for request in requests]
    together = await asyncio.gather(*(collect(engine, request) for request in requests))
    for one, other in zip(alone, together, strict=True):
        assert finishes(one) == finishes(other)
        assert usage_of(one).completion_tokens == usage_of(other).completion_tokens
        # In a batch llama.cpp computes the last digits of logits differently.
        assert text_of(one)[:3] == text_of(other)[:3]


async def test_closing_early_frees_every_slot_within_a_second(engine: Engine) -> None:
    endless = [ask(LONG, ignore_eos=True) for _ in range(MAX_REQUESTS)]
    await asyncio.gather(*(first_event(engine, request) for request in endless))
    started = time.monotonic()
    again = [ask(LONG, max_tokens=3) for _ in range(MAX_REQUESTS)]
    answers = await asyncio.gather(*(collect(engine, request) for request in again))
    assert [usage_of(events).completion_tokens for events in answers] == [3] * MAX_REQUESTS
    assert time.monotonic() - started < 1


async def test_cancelling_the_reader_frees_the_slot(engine: Engine) -> None:
    for _ in range(MAX_REQUESTS + 1):
        with anyio.move_on_after(0.1):
            await collect(engine, ask(LONG, ignore_eos=True))
    assert finishes(await collect(engine, ask(LONG, max_tokens=2)))


async def test_a_refused_request_leaves_the_engine_usable(engine: Engine) -> None:
    assert isinstance(engine, HasContextLength)
    with pytest.raises(ContextLengthExceeded) as caught:
        await collect(engine, ask(LONG, max_tokens=engine.context_length))
    assert caught.value.limit == engine.context_length
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(InvalidRequest) as refused:
        await collect(engine, type(ask())("x", ask().prompt, extra={"guided_zebra": 1}))
    assert refused.value.param == "guided_zebra"
    assert usage_of(await collect(engine, ask(LONG, max_tokens=2)))


async def test_two_requests_may_have_one_id(engine: Engine, case: Case) -> None:
    request = ask(LONG, max_tokens=4)
    answers = await asyncio.gather(collect(engine, request), collect(engine, request))
    assert [usage_of(events).completion_tokens for events in answers] == [4, 4], case.id


async def test_closing_twice_and_before_start(case: Case, folder: Path) -> None:
    engine = case.build(folder)
    assert not engine.health().is_ready
    assert engine.health().detail
    await engine.aclose()
    await engine.aclose()
    assert not engine.health().is_ready


async def test_health_follows_the_engines_life(case: Case, folder: Path) -> None:
    engine = case.build(folder)
    with pytest.raises(EngineUnavailable):
        await collect(engine, ask())
    await engine.start()
    assert engine.health().is_ready
    await engine.aclose()
    assert not engine.health().is_ready
    assert engine.health().detail
    with pytest.raises(EngineUnavailable):
        await collect(engine, ask())


async def test_closing_ends_what_runs(case: Case, folder: Path) -> None:
    engine = case.build(folder)
    await engine.start()
    async with stream(engine, ask(LONG, ignore_eos=True)) as events:
        await anext(events)
        await engine.aclose()
        with pytest.raises(EngineUnavailable):
            async for _ in events:
                pass
