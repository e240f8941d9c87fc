"""The core for adapters that bring a generate function of their own, as DB-GPT's did.

Such a function knows one prompt at a time, so requests run one after the other. Text goes in and
comes out: stop strings are applied here, tokens are counted with the tokenizer. As the function
tokenises the prompt itself, what a user writes may become a control token there.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from engines.core import StepOutput
from engines.decoding.stops import StopScanner
from engines.errors import EngineError, EngineOverloaded, EngineUnavailable, InvalidRequest
from engines.transformers.config import TransformersOptions
from engines.transformers.generation import Ended, GenerateStream, Generation
from engines.transformers.loading import Loaded, loaded_context_length
from engines.transformers.parameters import check_supported, resolve_max_tokens
from engines.transformers.texts import (
    SEPARATOR,
    count_tokens,
    plain_messages,
    prompt_text,
    token_ids,
)
from engines.types import (
    Event,
    Finish,
    FinishReason,
    GenerationRequest,
    MessagesPrompt,
    PartsPrompt,
    Prompt,
    TextDelta,
    Usage,
)

logger = logging.getLogger(__name__)

# How long a step may wait for a piece: commands are heard between steps only.
_STEP_SECONDS = 0.05
_CLOSE_SECONDS = 2.0
# What such a function is told; whether it listens is its adapter's affair.
_HONOURED = frozenset(
    {"temperature", "top_p", "top_k", "repetition_penalty", "seed", "max_tokens", "stop", "n"}
    | {"stop_token_ids"}
)


@dataclass(eq=False, slots=True)
class Job:
    """A request on its way through the function, one choice after the other.

    `index` is the choice that runs, `text` what it has yielded in `n_pieces` pieces.
    """

    request: GenerationRequest
    n_prompt: int
    max_tokens: int
    stops: tuple[str, ...]
    params: dict[str, Any]
    index: int = -1
    n_generated: int = 0
    n_pieces: int = 0
    text: str = ""
    scanner: StopScanner = field(default_factory=lambda: StopScanner(()))

    def begin_choice(self) -> None:
        """Go on to the next choice."""
        self.index += 1
        self.text, self.n_pieces = "", 0
        self.scanner = StopScanner(self.stops)


class StreamCore:
    """A model behind a generate function; see `engines.core.Core`."""

    def __init__(
        self, loaded: Loaded, generate: GenerateStream, options: TransformersOptions
    ) -> None:
        self._loaded = loaded
        self._generate = generate
        self._max_queue = options.max_queue
        self._context_length = loaded_context_length(loaded.model, options)
        self._jobs: deque[Job] = deque()
        self._running: Job | None = None
        self._generation: Generation | None = None
        self._is_closed = False
        kind = type(loaded.model).__name__
        self.detail = f"{kind} through its adapter's generate function, one request at a time"

    @property
    def context_length(self) -> int:
        """Tokens one request may hold, prompt and answer together."""
        return self._context_length

    def submit(self, request: GenerationRequest) -> None:
        """Take a request in. Raises `InvalidRequest`, `EngineOverloaded`, `EngineUnavailable`."""
        if self._is_closed:
            raise EngineUnavailable("the transformers engine is closed")
        if any(job.request.request_id == request.request_id for job in self._jobs):
            raise InvalidRequest(f"request id {request.request_id!r} is in use")
        check_supported(request, _HONOURED)
        if len(self._jobs) > self._max_queue:
            raise EngineOverloaded(
                f"one request runs and {len(self._jobs) - 1} wait; try again later"
            )
        self._jobs.append(self._job(request))

    def cancel(self, request_id: str) -> None:
        """Drop a request; the function stops before its next piece. Unknown ids are ignored."""
        for job in list(self._jobs):
            if job.request.request_id == request_id:
                self._drop(job)

    def has_work(self) -> bool:
        """Tell whether `step` would advance anything."""
        return bool(self._jobs)

    def step(self) -> list[StepOutput]:
        """Take what the function has yielded for the oldest request."""
        if not self._jobs:
            return []
        job = self._jobs[0]
        if self._running is not job or self._generation is None:
            self._begin(job)
            return []
        events: list[Event] = []
        for piece in self._generation.next_pieces(_STEP_SECONDS):
            if isinstance(piece, Ended) and piece.error is not None:
                return [self._fail(job, piece.error)]
            events += self._end(job) if isinstance(piece, Ended) else self._take(job, piece)
            if self._running is not job:
                break
        return [StepOutput(job.request.request_id, tuple(events))] if events else []

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt, as the function's tokenizer makes them."""
        if self._is_closed:
            raise EngineUnavailable("the transformers engine is closed")
        tokenizer = self._loaded.tokenizer
        return tuple(token_ids(tokenizer, prompt_text(prompt, tokenizer)))

    def close(self) -> None:
        """Drop all requests; safe to call twice."""
        for job in list(self._jobs):
            self._drop(job)
        self._is_closed = True
        if self._generation is not None:
            self._generation.wait(_CLOSE_SECONDS)

    def _job(self, request: GenerationRequest) -> Job:
        """Make the parameters that such a function gets. Raises `InvalidRequest`."""
        sampling, prompt = request.sampling, request.prompt
        text = prompt_text(prompt, self._loaded.tokenizer)
        n_prompt = count_tokens(self._loaded.tokenizer, text)
        max_tokens = resolve_max_tokens(n_prompt, sampling.max_tokens, self.context_length)
        stops = sampling.stop
        messages: list[dict[str, str]] = []
        if isinstance(prompt, PartsPrompt):
            stops += prompt.stop + prompt.stop_tokens
        elif isinstance(prompt, MessagesPrompt):
            stops = (SEPARATOR, *stops)
            messages = plain_messages(prompt.messages)
        params: dict[str, Any] = {
            "prompt": text,
            "messages": messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "repetition_penalty": sampling.repetition_penalty,
            "max_new_tokens": max_tokens,
            # One as such: functions of that time knew no lists.
            "stop": list(stops) if len(stops) > 1 else next(iter(stops), None),
            "stop_token_ids": list(sampling.stop_token_ids),
            "echo": False,
        }
        return Job(request, n_prompt, max_tokens, stops, params)

    def _begin(self, job: Job) -> None:
        """Start the next choice of a job, once the function has ended what it did before."""
        if self._generation is not None and not self._generation.wait(_STEP_SECONDS):
            return
        job.begin_choice()
        seed = job.request.sampling.seed
        self._generation = Generation(
            self._generate,
            self._loaded,
            job.params,
            self._context_length,
            None if seed is None else seed + job.index,
        )
        self._running = job

    def _take(self, job: Job, piece: str) -> list[Event]:
        """Add a piece of text; return what it lets be shown."""
        job.text += piece
        job.n_pieces += 1
        shown, is_stopped = job.scanner.push(piece)
        if is_stopped:
            return self._finish(job, shown, "stop")
        # A piece is one token at least, so a function that goes on for ever is ended here.
        if job.n_pieces >= job.max_tokens:
            return self._end(job, shown)
        return [TextDelta(job.index, shown)] if shown else []

    def _end(self, job: Job, shown: str = "") -> list[Event]:
        """End the choice that runs: what was held back is shown after all."""
        n_tokens = count_tokens(self._loaded.tokenizer, job.text)
        reason: FinishReason = "length" if n_tokens >= job.max_tokens else "stop"
        return self._finish(job, shown + job.scanner.flush(), reason)

    def _finish(self, job: Job, shown: str, reason: FinishReason) -> list[Event]:
        """Close the choice that runs; return the usage too if it was the job's last."""
        self._stop()
        job.n_generated += count_tokens(self._loaded.tokenizer, job.text)
        events: list[Event] = [TextDelta(job.index, shown)] if shown else []
        events.append(Finish(job.index, reason))
        if job.index + 1 == job.request.sampling.n:
            self._jobs.remove(job)
            events.append(Usage(job.n_prompt, job.n_generated))
        return events

    def _fail(self, job: Job, error: Exception) -> StepOutput:
        logger.error("the adapter's generate function failed", exc_info=error)
        self._drop(job)
        failure = EngineError(f"the adapter's generate function failed ({type(error).__name__})")
        return StepOutput(job.request.request_id, error=failure)

    def _drop(self, job: Job) -> None:
        self._jobs.remove(job)
        if self._running is job:
            self._stop()

    def _stop(self) -> None:
        self._running = None
        if self._generation is not None:
            self._generation.cancel()
