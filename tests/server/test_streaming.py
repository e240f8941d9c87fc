"""What holds an answer's events lets go of them, however sending ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engines.echo import EchoEngine, EchoState
from engines.types import Event, GenerationRequest, PartsPrompt, Text, TextDelta
from server.chat import ChatChunks
from server.streaming import AnswerStream, HeldStream, sse
from tests.serving import served

REQUEST = GenerationRequest("r", PartsPrompt((Text("one two three"),)))


@pytest.mark.parametrize("prefill_seconds", [0, 60])
def test_a_client_that_leaves_before_the_first_frame_stops_the_generation(
    prefill_seconds: float,
) -> None:
    engine = EchoEngine(prefill_seconds=prefill_seconds, tokens_per_second=50)
    assert asyncio.run(send_to_nobody(engine)) == EchoState(running=(), aborted=("r",))


async def send_to_nobody(engine: EchoEngine) -> EchoState:
    """Send an answer over a connection that takes nothing and closes; return what still runs."""

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        await asyncio.Event().wait()

    await engine.start()
    held = HeldStream(engine.generate(REQUEST))
    await held.wait(0.1)
    chunks = ChatChunks("id", served(engine), include_usage=False)
    await AnswerStream(held, chunks, 15)({"type": "http", "method": "POST"}, receive, send)
    return engine.state


async def unfinished() -> AsyncIterator[Event]:
    yield TextDelta(0, "one")


def test_a_stream_that_just_ends_is_an_error() -> None:
    async def frames() -> bytes:
        chunks = ChatChunks("id", served(EchoEngine()), include_usage=False)
        return b"".join([frame async for frame in sse(unfinished(), chunks)])

    sent = asyncio.run(frames())
    assert b'"error"' in sent
    assert b"[DONE]" not in sent
