"""The requests and questions that a child process has been given and has not yet answered."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, assert_never

from engines import wire
from engines.child_process import ChildProcess
from engines.core import StepOutput
from engines.embedding_answer import EmbeddingAnswer
from engines.errors import EngineError, InvalidRequest, QuarantinedRequest
from engines.restarts import Quarantine, fingerprint
from engines.types import (
    EmbeddingRequest,
    Embeddings,
    Event,
    GenerationRequest,
    Prompt,
    TextDelta,
    TokenLogprob,
    Usage,
)
from engines.wire_types import pack_prompt, pack_request, unpack_error, unpack_output

Answer = wire.Outputs | wire.Tokenized | wire.Embedded | wire.Heartbeat

# Steps that a reader may lie behind before what it has not read is joined.
MAX_UNREAD_STEPS = 256


class Stream:
    """The events of one request, from the child's messages to whoever reads them.

    The child is never made to wait for a reader: others are served over the same connection.
    What a slow one has not read is joined now and then, so that it costs the bytes of its text,
    not an object a token; logprobs cannot be joined, and the `max_tokens` of the choices bound
    both. Leaving the context tells the child to stop, without waiting for anything.
    """

    def __init__(self, request: GenerationRequest, on_exit: Callable[[], None]) -> None:
        self.request = request
        self.is_answered = False  # the child has nothing more to say
        self.is_over = False  # and the reader has taken all of it
        self._on_exit = on_exit
        self._unread: deque[tuple[Event, ...]] = deque()
        self._error: EngineError | None = None
        self._news = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._on_exit()

    def take(self, output: StepOutput) -> None:
        """Append what a step produced."""
        if output.events:
            self.is_answered = isinstance(output.events[-1], Usage)
            self._unread.append(output.events)
            if len(self._unread) > MAX_UNREAD_STEPS:
                self._unread = deque([joined(itertools.chain.from_iterable(self._unread))])
            self._news.set()
        if output.error is not None:
            self.fail(output.error)

    def fail(self, error: EngineError) -> None:
        """End the stream with an error, after what has come before."""
        self.is_answered = True
        self._error = error
        self._news.set()

    async def next_events(self) -> tuple[Event, ...]:
        """Return the next events, at least one. Raises the error that ended the request."""
        while not self._unread and self._error is None:
            self._news.clear()
            await self._news.wait()
        if not self._unread and self._error is not None:
            self.is_over = True
            raise self._error
        events = self._unread.popleft()
        self.is_over = self.is_answered and not self._unread and self._error is None
        return events


def joined(events: Iterable[Event]) -> tuple[Event, ...]:
    """Join the texts of each choice as far as no other event stands between them."""
    result: list[Event] = []
    texts: dict[int, list[TextDelta]] = {}
    for event in events:
        if isinstance(event, TextDelta):
            texts.setdefault(event.index, []).append(event)
        else:
            result += map(_join, texts.values())
            texts.clear()
            result.append(event)
    return (*result, *map(_join, texts.values()))


def _join(deltas: list[TextDelta]) -> TextDelta:
    logprobs: Iterable[TokenLogprob] = (entry for delta in deltas for entry in delta.logprobs)
    return TextDelta(deltas[0].index, "".join(delta.text for delta in deltas), tuple(logprobs))


class Calls:
    """Everything the current child owes an answer to.

    Requests get an id of their own on the wire: what a child still says of a cancelled request
    cannot reach a later one under the same id.
    """

    def __init__(self, engine: str, max_crashes_per_request: int) -> None:
        self._engine = engine
        self._quarantine = Quarantine(max_crashes_per_request)
        self._numbers = itertools.count(1)
        self._streams: dict[str, Stream] = {}
        self._questions: dict[int, asyncio.Future[tuple[int, ...]]] = {}
        self._embeddings: dict[str, EmbeddingAnswer] = {}
        self._commands_handled = 0

    def is_owing(self, child: ChildProcess) -> bool:
        """Whether the child should be saying something: an answer, or that it has heard."""
        is_heard = self._commands_handled == child.commands_sent
        return bool(self._streams or self._questions or self._embeddings) or not is_heard

    def open(self, child: ChildProcess, request: GenerationRequest) -> Stream:
        """Send a request to the child. Raises `InvalidRequest` for one that cannot be sent."""
        wire_id = f"{request.request_id}/{next(self._numbers)}"
        with _travelling():
            self._check_quarantine(request)
            child.send(wire.Submit(pack_request(request, wire_id)))
        stream = Stream(request, lambda: self._leave(child, wire_id))
        self._streams[wire_id] = stream
        return stream

    def _check_quarantine(self, request: GenerationRequest | EmbeddingRequest) -> None:
        if self._quarantine and self._quarantine.is_quarantined(fingerprint(request)):
            raise QuarantinedRequest(
                f"this request was running each time the {self._engine!r} engine crashed; "
                "it is not run again. Change the request."
            )

    def _leave(self, child: ChildProcess, wire_id: str) -> None:
        stream = self._streams.pop(wire_id, None)
        if stream is not None and not stream.is_answered:
            child.send(wire.Cancel(wire_id))

    async def tokenize(self, child: ChildProcess, prompt: Prompt) -> tuple[int, ...]:
        """Ask the child for the token ids of a prompt."""
        call = next(self._numbers)
        with _travelling():
            child.send(wire.Tokenize(call, pack_prompt(prompt)))
        answer: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()
        self._questions[call] = answer
        try:
            return await answer
        finally:
            self._questions.pop(call, None)

    async def embed(self, child: ChildProcess, request: EmbeddingRequest) -> Embeddings:
        """Have the child turn prompts into vectors; cancelling it tells the child to stop."""
        wire_id = f"{request.request_id}/{next(self._numbers)}"
        with _travelling():
            self._check_quarantine(request)
            prompts = tuple(map(pack_prompt, request.prompts))
            child.send(wire.Embed(wire_id, prompts, request.dimensions))
        answer = self._embeddings[wire_id] = EmbeddingAnswer(request)
        try:
            return await answer.whole
        finally:
            if self._embeddings.pop(wire_id, None) is not None:
                child.send(wire.Cancel(wire_id))

    def receive(self, message: Answer) -> None:
        """Give an answer of the child to whoever waits for it."""
        match message:
            case wire.Outputs():
                self._commands_handled = message.commands
                for output in message.outputs:
                    self._take(unpack_output(output))
            case wire.Heartbeat():
                self._commands_handled = message.commands
            case wire.Tokenized():
                self._answer(message)
            case wire.Embedded():
                self._take_vectors(message)
            case _:
                assert_never(message)

    def _take(self, output: StepOutput) -> None:
        stream = self._streams.get(output.request_id)
        if stream is None:
            return
        stream.take(output)
        if stream.is_answered:
            del self._streams[output.request_id]
            if self._quarantine and output.error is None:
                self._quarantine.note_success(fingerprint(stream.request))

    def _take_vectors(self, message: wire.Embedded) -> None:
        answer = self._embeddings.get(message.request_id)
        if answer is None:
            return
        answer.take(message)
        if answer.whole.done():
            del self._embeddings[message.request_id]
            if self._quarantine and message.error is None:
                self._quarantine.note_success(fingerprint(answer.request))

    def _answer(self, message: wire.Tokenized) -> None:
        answer = self._questions.pop(message.call, None)
        if answer is None or answer.done():
            return
        if message.error is not None:
            answer.set_exception(unpack_error(message.error))
        else:
            answer.set_result(message.token_ids)

    def note_crash(self) -> None:
        """Hold the crash that just happened, once, against each request that was running."""
        # A set: the same request twice at one crash has still been seen at one crash only.
        culprits = {fingerprint(stream.request) for stream in self._streams.values()}
        culprits |= {fingerprint(answer.request) for answer in self._embeddings.values()}
        for culprit in culprits:
            self._quarantine.note_crash(culprit)

    def fail_all(self, make_error: Callable[[], EngineError]) -> None:
        """End everything open with an error of its own; the next child starts with nothing."""
        for stream in self._streams.values():
            stream.fail(make_error())
        for answer in self._questions.values():
            if not answer.done():
                answer.set_exception(make_error())
        for embedding in self._embeddings.values():
            embedding.fail(make_error())
        self._streams.clear()
        self._questions.clear()
        self._embeddings.clear()
        self._commands_handled = 0


@contextmanager
def _travelling() -> Iterator[None]:
    """Encode what a client wrote; what cannot be encoded is the client's mistake."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidRequest("the text holds a lone surrogate, which is no character") from error
    except (wire.FrameError, TypeError, OverflowError) as error:
        raise InvalidRequest(f"the request cannot be handed to the engine: {error}") from error
