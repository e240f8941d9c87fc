"""Short ways to ask an engine something and to look at what it answers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, cast

from engines.base import Engine
from engines.types import (
    Event,
    Finish,
    GenerationRequest,
    PartsPrompt,
    SamplingParams,
    Text,
    TextDelta,
    Usage,
)

_numbers = itertools.count()


def ask(text: str = "hello world", **sampling: Any) -> GenerationRequest:
    """A request with a prompt of literal text; greedy unless told otherwise."""
    params = SamplingParams(**({"temperature": 0.0} | sampling))
    return GenerationRequest(f"request-{next(_numbers)}", PartsPrompt((Text(text),)), params)


def stream(engine: Engine, request: GenerationRequest) -> aclosing[Any]:
    """The events of a request, to be closed by `async with`."""
    return aclosing(cast(Any, engine.generate(request)))


async def collect(engine: Engine, request: GenerationRequest) -> list[Event]:
    """All the events of a request."""
    async with stream(engine, request) as events:
        return [event async for event in events]


async def first_event(engine: Engine, request: GenerationRequest) -> Event:
    """The first event of a request, which is then closed."""
    async with stream(engine, request) as events:
        return cast(Event, await anext(events))


def text_of(events: list[Event], index: int = 0) -> str:
    """The text of one choice."""
    return "".join(e.text for e in events if isinstance(e, TextDelta) and e.index == index)


def finishes(events: list[Event]) -> dict[int, str]:
    """Choice -> why it ended; fails when one ended twice."""
    ends = [event for event in events if isinstance(event, Finish)]
    assert len({end.index for end in ends}) == len(ends), "a choice finished twice"
    return {end.index: end.reason for end in ends}


def usage_of(events: list[Event]) -> Usage:
    """The usage, which must be the last event and the only one of its kind."""
    assert [isinstance(event, Usage) for event in events].count(True) == 1
    assert isinstance(events[-1], Usage)
    return events[-1]


async def eventually(condition: Callable[[], bool], timeout: float = 15.0) -> float:
    """Wait until a condition holds; return the seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout, "it did not come true in time"
        await asyncio.sleep(0.005)
    return time.monotonic() - started
