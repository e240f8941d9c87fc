"""Several event streams as one: /v1/completions takes several prompts in a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from engines.types import Event, Usage
from server.generation import closing

_Item = Event | BaseException | None


def merge(streams: Sequence[AsyncIterator[Event]], *, choices_each: int) -> AsyncIterator[Event]:
    """Run the streams side by side; choice i of stream s becomes choice s * choices_each + i.

    Ends with one `Usage`, the sum. The first error ends all.
    """
    return streams[0] if len(streams) == 1 else _merge(streams, choices_each)


async def _merge(
    streams: Sequence[AsyncIterator[Event]], choices_each: int
) -> AsyncIterator[Event]:
    # Bounded: an engine never runs far ahead of a client that reads slowly.
    queue: asyncio.Queue[_Item] = asyncio.Queue(maxsize=64)
    tasks = [
        asyncio.ensure_future(_pump(stream, number * choices_each, queue))
        for number, stream in enumerate(streams)
    ]
    total = Usage(0, 0)
    running = len(tasks)
    try:
        while running:
            item = await queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            elif isinstance(item, Usage):
                total = _sum(total, item)
            else:
                yield item
        yield total
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _pump(stream: AsyncIterator[Event], offset: int, queue: asyncio.Queue[_Item]) -> None:
    try:
        async with closing(stream):
            async for event in stream:
                await queue.put(
                    event
                    if isinstance(event, Usage) or not offset
                    else replace(event, index=event.index + offset)
                )
    except Exception as error:
        await queue.put(error)
    else:
        await queue.put(None)


def _sum(a: Usage, b: Usage) -> Usage:
    return Usage(
        a.prompt_tokens + b.prompt_tokens,
        a.completion_tokens + b.completion_tokens,
        a.cached_tokens + b.cached_tokens,
        a.reasoning_tokens + b.reasoning_tokens,
    )
