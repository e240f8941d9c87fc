"""What is held for requests in flight, with a child that only takes notes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engines import wire
from engines.calls import MAX_UNREAD_STEPS, Calls, Stream, joined
from engines.child_process import ChildProcess
from engines.core import StepOutput
from engines.errors import EngineCrashed, EngineError, InvalidRequest, QuarantinedRequest
from engines.types import (
    EmbeddingRequest,
    Embeddings,
    Event,
    Finish,
    GenerationRequest,
    TextDelta,
    TokenLogprob,
    Usage,
)
from engines.wire_types import pack_output
from tests.engines.driving import ask, text_of

pytestmark = pytest.mark.anyio

CRASH = EngineCrashed("it died")


class Notes:
    """Stands for a child process: encodes what it is sent, and keeps it."""

    def __init__(self) -> None:
        self.commands: list[Any] = []

    def send(self, command: wire.ToChild) -> None:
        wire.encode(command)
        self.commands.append(command)


def opened(calls: Calls, *requests: GenerationRequest) -> list[Stream]:
    return [calls.open(cast(ChildProcess, Notes()), request) for request in requests]


def crash(calls: Calls) -> None:
    calls.note_crash()
    calls.fail_all(lambda: CRASH)


def stream_of(outputs: Sequence[StepOutput]) -> Stream:
    stream = Stream(ask(), lambda: None)
    for output in outputs:
        stream.take(output)
    return stream


async def read(stream: Stream) -> list[Event]:
    events: list[Event] = []
    while not stream.is_over:
        events += await stream.next_events()
    return events


async def test_the_same_request_twice_at_one_crash_was_at_one_crash() -> None:
    calls = Calls("echo", max_crashes_per_request=2)
    opened(calls, ask("boom"), ask("boom"), ask("boom"))
    crash(calls)
    opened(calls, ask("boom"))
    crash(calls)
    with pytest.raises(QuarantinedRequest):
        opened(calls, ask("boom"))


@pytest.mark.parametrize("text", ["\ud800", "x" * wire.MAX_FRAME_BYTES])
@pytest.mark.parametrize("n_crashes", [0, 1])
async def test_what_cannot_travel_is_refused_also_after_a_crash(text: str, n_crashes: int) -> None:
    calls = Calls("echo", max_crashes_per_request=2)
    for _ in range(n_crashes):
        opened(calls, ask())
        crash(calls)
    with pytest.raises(InvalidRequest):
        opened(calls, ask(text))


async def test_a_reader_that_lies_behind_holds_few_objects() -> None:
    steps = [(TextDelta(0, f"{i} "), TextDelta(1, f"{i}, ")) for i in range(10_000)]
    end = (TextDelta(1, "!"), Finish(0, "stop"), Finish(1, "length"), Usage(1, 20_000))
    stream = stream_of([StepOutput("a", events) for events in (*steps, end)])
    events = await read(stream)
    assert len(events) < 3 * MAX_UNREAD_STEPS
    assert text_of(events) == "".join(f"{i} " for i in range(10_000))
    assert text_of(events, 1) == "".join(f"{i}, " for i in range(10_000)) + "!"
    assert events[-3:] == list(end[1:])


async def test_an_error_comes_after_what_was_said_before_it() -> None:
    events = (TextDelta(0, "a"),)
    stream = stream_of([StepOutput("a", events), StepOutput("a", error=EngineError("no"))])
    assert await stream.next_events() == events
    assert not stream.is_over
    with pytest.raises(EngineError, match="no"):
        await stream.next_events()
    assert stream.is_over


async def test_a_waiting_reader_wakes_up() -> None:
    stream = Stream(ask(), lambda: None)
    reader = asyncio.create_task(read(stream))
    for event in (TextDelta(0, "a"), Finish(0, "stop"), Usage(1, 1)):
        await asyncio.sleep(0)
        stream.take(StepOutput("a", (event,)))
    assert text_of(await reader) == "a"


def test_texts_are_joined_up_to_any_other_event() -> None:
    first, second = TokenLogprob("a", -1.0, b"a"), TokenLogprob("b", -2.0, b"b")
    events = (
        *(TextDelta(0, "a", (first,)), TextDelta(1, "x"), TextDelta(0, "b", (second,))),
        *(Finish(0, "stop"), TextDelta(1, "y"), TextDelta(1, "z"), Finish(1, "stop")),
        Usage(1, 5),
    )
    assert joined(events) == (
        *(TextDelta(0, "ab", (first, second)), TextDelta(1, "x"), Finish(0, "stop")),
        *(TextDelta(1, "yz"), Finish(1, "stop"), Usage(1, 5)),
    )


async def test_late_words_of_a_cancelled_request_reach_nobody() -> None:
    calls, notes = Calls("echo", 2), Notes()
    with calls.open(cast(ChildProcess, notes), ask()):
        pass
    wire_id = notes.commands[0].request.request_id
    assert notes.commands[1] == wire.Cancel(wire_id)
    late = pack_output(StepOutput(wire_id, (TextDelta(0, "late"),)))
    calls.receive(wire.Outputs(1, 2, (late,)))
    assert not calls.is_owing(cast(ChildProcess, SimpleNamespace(commands_sent=2)))


TEXTS = EmbeddingRequest("e", (ask("one").prompt, ask("two").prompt), dimensions=3)


async def embedding(calls: Calls) -> tuple[asyncio.Task[Embeddings], Notes, str]:
    """An open request for embeddings, what the child was told, and its id on the wire."""
    notes = Notes()
    task = asyncio.create_task(calls.embed(cast(ChildProcess, notes), TEXTS))
    await asyncio.sleep(0)
    return task, notes, notes.commands[0].request_id


async def test_vectors_come_in_parts_and_leave_in_order() -> None:
    calls = Calls("llama_cpp", 2)
    task, notes, wire_id = await embedding(calls)
    assert notes.commands[0].dimensions == 3
    calls.receive(wire.Embedded(wire_id, ((1, b"two"),), 5))
    calls.receive(wire.Embedded(wire_id, ((0, b"one"),), 4))
    assert calls.is_owing(cast(ChildProcess, SimpleNamespace(commands_sent=0)))
    calls.receive(wire.Embedded(wire_id, is_last=True))
    assert await task == Embeddings((b"one", b"two"), 9)
    assert len(notes.commands) == 1
    assert not calls.is_owing(cast(ChildProcess, SimpleNamespace(commands_sent=0)))


async def test_a_missing_vector_is_an_error() -> None:
    calls = Calls("llama_cpp", 2)
    task, _, wire_id = await embedding(calls)
    calls.receive(wire.Embedded(wire_id, ((1, b"two"),), is_last=True))
    with pytest.raises(EngineError, match="without its vector"):
        await task


async def test_leaving_cancels_and_late_vectors_reach_nobody() -> None:
    calls = Calls("llama_cpp", 2)
    task, notes, wire_id = await embedding(calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert notes.commands[1] == wire.Cancel(wire_id)
    calls.receive(wire.Embedded(wire_id, is_last=True))


async def test_a_request_for_embeddings_at_two_crashes_is_refused() -> None:
    calls = Calls("llama_cpp", 2)
    for _ in range(2):
        task, notes, _ = await embedding(calls)
        crash(calls)
        with pytest.raises(EngineCrashed):
            await task
        assert len(notes.commands) == 1
    with pytest.raises(QuarantinedRequest):
        await calls.embed(cast(ChildProcess, Notes()), TEXTS)


async def test_an_answered_request_for_embeddings_is_cleared() -> None:
    calls = Calls("llama_cpp", 2)
    for _ in range(3):
        task, _, _ = await embedding(calls)
        crash(calls)
        with pytest.raises(EngineCrashed):
            await task
        task, _, wire_id = await embedding(calls)
        vectors = ((0, b"one"), (1, b"two"))
        calls.receive(wire.Embedded(wire_id, vectors, 2, is_last=True))
        assert len((await task).vectors) == 2
