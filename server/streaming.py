"""From events to HTTP: a whole answer is the folded stream, a streamed one is SSE.

The status is decided late on purpose: headers wait for the first event, or `header_hold` seconds,
so that what fails early has its real status. What fails later is one `data: {"error": ...}` and no
`[DONE]`. Leaving by any door closes the event stream, which aborts the generation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol, TypeVar

from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engines.errors import EngineError
from engines.types import Event, Usage
from server.errors import ClientGoneError, to_api_error
from server.generation import closing

# Its drain would cut every running stream at SIGTERM; uvicorn's own shutdown lets them finish.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]
# At debug level it would log every chunk, and so the text of users.
logging.getLogger("sse_starlette").setLevel(logging.WARNING)

SEND_TIMEOUT = 30.0
"""Seconds a client may leave a chunk unread; then its request is aborted."""

_HEADERS = {"Cache-Control": "no-cache, no-store, no-transform"}

T = TypeVar("T")


class Chunks(Protocol):
    """Makes chunk payloads of events."""

    def feed(self, event: Event) -> list[bytes]:
        """Return the JSON payloads an event makes, often one, sometimes none."""
        ...


class Fold(Protocol):
    """Makes one payload of all events."""

    def feed(self, event: Event) -> None:
        """Take one event in."""
        ...

    def body(self) -> bytes:
        """Return the JSON payload of the whole answer."""
        ...


async def whole_response(request: Request, events: AsyncIterator[Event], fold: Fold) -> Response:
    """Answer with the folded stream; a client that leaves stops the generation."""

    async def collect() -> None:
        event: Event | None = None
        async with closing(events):
            async for event in events:
                fold.feed(event)
        _check_complete(event)

    await unless_gone(request, collect())
    return Response(fold.body(), media_type="application/json")


async def stream_response(
    request: Request,
    events: AsyncIterator[Event],
    chunks: Chunks,
    *,
    header_hold: float,
    ping_seconds: float,
) -> Response:
    """Answer with SSE. Raises what the engine raises before the headers are sent."""
    held = HeldStream(events)
    try:
        await unless_gone(request, held.wait(header_hold))
    except BaseException:
        async with closing(held):
            raise
    return AnswerStream(held, chunks, ping_seconds)


class AnswerStream(EventSourceResponse):
    """The SSE response of an answer. Its events are closed however sending ends.

    The frames see to that only once they are iterated: a client may leave, or the server stop,
    before the first of them is asked for.
    """

    def __init__(self, events: HeldStream, chunks: Chunks, ping_seconds: float) -> None:
        super().__init__(
            sse(events, chunks),
            headers=_HEADERS,
            sep="\n",
            ping=ping_seconds,
            send_timeout=SEND_TIMEOUT,
        )
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with closing(self._events):
            await super().__call__(scope, receive, send)


async def sse(events: AsyncIterator[Event], chunks: Chunks) -> AsyncIterator[bytes]:
    """Yield the SSE frames of an answer, errors included."""
    event: Event | None = None
    try:
        async with closing(events):
            async for event in events:
                if payloads := chunks.feed(event):
                    yield b"".join(b"data: %b\n\n" % payload for payload in payloads)
                    # A real checkpoint: once the client is gone, uvicorn's send returns without
                    # suspending, and a ready stream would keep the event loop to itself.
                    await asyncio.sleep(0)
        _check_complete(event)
    except Exception as error:
        yield b"data: %b\n\n" % to_api_error(error).body
    else:
        yield b"data: [DONE]\n\n"


def _check_complete(last: Event | None) -> None:
    """Raise `EngineError` unless the last event is the one that ends an answer."""
    if not isinstance(last, Usage):
        raise EngineError("the engine broke off without an error")


class HeldStream:
    """An event stream whose first event can be waited for without consuming it."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events
        self._first: asyncio.Task[Event] | None = asyncio.ensure_future(_next(events))

    async def wait(self, seconds: float) -> None:
        """Return when the first event is there or the time is over; raise what it raised."""
        if self._first is None:
            return
        done, _ = await asyncio.wait({self._first}, timeout=seconds)
        for task in done:
            task.result()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """Return the next event."""
        if self._first is None:
            return await anext(self._events)
        first = await self._first
        self._first = None
        return first

    async def aclose(self) -> None:
        """Abort the stream, also while its first event is being waited for."""
        if self._first is not None:
            self._first.cancel()
            await asyncio.wait({self._first})
            _retrieve(self._first)
            self._first = None
        async with closing(self._events):
            pass


async def _next(events: AsyncIterator[Event]) -> Event:
    return await anext(events)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Await `work`, but cancel it when the client leaves. Raises `ClientGoneError` then.

    Only for the time before a response starts, and for a body that was read to its end: the next
    message from the server is then the disconnect.
    """
    running = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        raise ClientGoneError
    finally:
        gone.cancel()
        running.cancel()
        await asyncio.wait({gone, running})
        _retrieve(gone)
        _retrieve(running)


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Look at a finished task's error, which was raised already or has nobody to go to."""
    if not task.cancelled():
        task.exception()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
