"""The llama.cpp core: one model, one context, one `llama_decode` a step over all requests.

A request becomes one sequence per choice. What waits, runs and is decoded when is the
scheduler's; this file moves tokens between it, the memory and the samplers, and says what came
of it. A seed repeats an answer as far as llama.cpp computes the same logits again; with flash
attention that depends, in the last digits, on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.core import StepOutput
from engines.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineUnavailable,
    InvalidParameter,
    InvalidRequest,
    UnsupportedParameter,
)
from engines.llama_cpp.binding import Context, DecodeError, Model
from engines.llama_cpp.choice import Choice, Limits
from engines.llama_cpp.config import LlamaCppOptions
from engines.llama_cpp.constraints import CompiledConstraint, ConstraintCompiler
from engines.llama_cpp.loading import load
from engines.llama_cpp.logprobs import LogprobReader
from engines.llama_cpp.prompt import PromptTokenizer
from engines.llama_cpp.requests import RunningChoice, RunningRequest
from engines.llama_cpp.sampling import TokenSampler, check_sampling
from engines.llama_cpp.scheduler import Placement, Scheduler, Sequence, Span
from engines.llama_cpp.sizing import Size
from engines.types import (
    Event,
    GenerationRequest,
    PartsPrompt,
    Prompt,
    SamplingParams,
    TokenLogprob,
)

# Copying a prefix between slots copies a slot's whole buffer; a short prompt is computed faster.
MIN_COPIED_TOKENS = 32
# A device that fails this often without one success in between is lost: a new process may help.
MAX_FAILED_STEPS = 3


class LlamaCppCore:
    """A loaded GGUF model and its running requests; see `engines.core.Core`."""

    def __init__(
        self, model: Model, context: Context, size: Size, options: LlamaCppOptions
    ) -> None:
        self._model = model
        self._context = context
        self._vocabulary = model.vocabulary
        self._tokenizer = PromptTokenizer(model.vocabulary)
        self._logprobs = LogprobReader(model.vocabulary.pieces, model.vocabulary.names)
        self._constraints = ConstraintCompiler(model.vocabulary)
        self._scheduler = Scheduler(
            n_slots=size.n_slots,
            context_length=size.context_length,
            n_batch=options.batch_size(size.n_slots),
            prefill_chunk=options.prefill_chunk,
            max_queue=options.max_queue,
            min_copied=0 if options.kv_unified else MIN_COPIED_TOKENS,
        )
        self._positions = np.arange(size.context_length, dtype=np.int32)
        self._requests: dict[str, RunningRequest] = {}
        self._choices: dict[Sequence, RunningChoice] = {}
        self._n_failed = 0
        self._is_closed = False
        self.detail = f"{model.description}, {size.n_slots} slots of {size.context_length} tokens"

    @property
    def context_length(self) -> int:
        """Tokens one request may hold, prompt and answer together."""
        return self._scheduler.context_length

    def submit(self, request: GenerationRequest) -> None:
        """Take a request in. Raises `InvalidRequest`, `EngineOverloaded`, `EngineUnavailable`."""
        if self._is_closed:
            raise EngineUnavailable("the llama_cpp engine is closed")
        if request.request_id in self._requests:
            raise InvalidRequest(f"request id {request.request_id!r} is in use")
        for name in request.extra:
            raise UnsupportedParameter(name, "llama_cpp")
        self._scheduler.check_room()
        prompt = self._tokenizer.encode(request.prompt, self.context_length)
        check_sampling(request.sampling, self._vocabulary.n_tokens)
        max_tokens = self._max_tokens(len(prompt), request.sampling.max_tokens)
        self._start(request, np.array(prompt, np.int32), self._limits(request, max_tokens))

    def cancel(self, request_id: str) -> None:
        """Drop a request and free what it held; unknown ids are ignored."""
        request = self._requests.get(request_id)
        if request is not None:
            self._drop(request)

    def has_work(self) -> bool:
        """Tell whether `step` would advance anything."""
        return self._scheduler.has_work()

    def step(self) -> list[StepOutput]:
        """Advance every running request once; a failed computation ends those that were in it.

        Raises `DecodeError` after several failures in a row: the core is of no use then.
        """
        while placement := self._scheduler.admit():
            self._place(placement)
        spans = self._scheduler.plan()
        if not spans:
            return []
        try:
            self._context.decode(self._fill(spans))
        except DecodeError as error:
            self._n_failed += 1
            if self._n_failed >= MAX_FAILED_STEPS:
                raise
            return self._fail(spans, error)
        self._n_failed = 0
        self._scheduler.advance(spans)
        return self._collect(spans)

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids exactly as a request with this prompt would use them."""
        if self._is_closed:
            raise EngineUnavailable("the llama_cpp engine is closed")
        return tuple(self._tokenizer.encode(prompt))

    def close(self) -> None:
        """Free the model; safe to call twice."""
        for request in list(self._requests.values()):
            self._drop(request)
        self._is_closed = True
        self._context.close()
        self._model.close()

    def _max_tokens(self, n_prompt: int, asked: int | None) -> int:
        """Return how many tokens a choice may generate. Raises `ContextLengthExceeded`."""
        if asked is not None and asked < 1:
            raise InvalidParameter("max_tokens", f"max_tokens must be at least 1, not {asked}")
        # Every answer has one token at least.
        if n_prompt + (asked or 1) > self.context_length:
            raise ContextLengthExceeded(self.context_length, n_prompt, asked)
        return asked or self.context_length - n_prompt

    def _limits(self, request: GenerationRequest, max_tokens: int) -> Limits:
        """Return when the request's choices end.

        `ignore_eos` is for the model's end-of-generation tokens and the template's stop tokens;
        what the client named in `stop` and `stop_token_ids` still ends the answer.
        """
        params, prompt = request.sampling, request.prompt
        end_tokens = set(params.stop_token_ids)
        stops = params.stop
        if not params.ignore_eos:
            end_tokens |= self._vocabulary.end_tokens
        if isinstance(prompt, PartsPrompt):
            stops += prompt.stop
            stop_ids = self._tokenizer.special_ids(prompt.stop_tokens)
            end_tokens.update(() if params.ignore_eos else stop_ids)
        return Limits(max_tokens, params.min_tokens, frozenset(end_tokens), stops)

    def _start(self, request: GenerationRequest, prompt: NDArray[np.int32], limits: Limits) -> None:
        """Make the request's choices and hand their sequences to the scheduler."""
        params = request.sampling
        asked = params.constraint
        constraint = self._constraints.compile(asked) if asked is not None else None
        running = RunningRequest(request.request_id, len(prompt), params.logprobs, [])
        leader: Sequence | None = None
        for index in range(params.n):
            sequence = Sequence(request.request_id, prompt, leader)
            sampler = self._sampler(params, index, prompt, limits, constraint)
            choice = Choice(index, limits, self._vocabulary.pieces)
            running.choices.append(RunningChoice(running, sequence, sampler, choice))
            leader = leader or sequence
        self._requests[request.request_id] = running
        self._choices.update((choice.sequence, choice) for choice in running.choices)
        self._scheduler.submit([choice.sequence for choice in running.choices])

    def _sampler(
        self,
        params: SamplingParams,
        index: int,
        prompt: NDArray[np.int32],
        limits: Limits,
        constraint: CompiledConstraint | None,
    ) -> TokenSampler:
        ends = limits.end_tokens
        state = constraint.start(ends) if constraint is not None else None
        return TokenSampler(params, index, self._vocabulary.n_tokens, prompt, ends, state)

    def _place(self, placement: Placement) -> None:
        """Make the memory of a slot hold what its sequence will build on."""
        slot, source, length = placement.slot, placement.source, placement.length
        if source is slot:
            cached = self._context.keep(slot.id, length)
        else:
            cached = self._context.copy(source.id, slot.id, length)
        if cached != length:
            self._scheduler.correct(placement, cached)

    def _fill(self, spans: Many[Span]) -> int:
        """Write the spans into the batch; return its number of rows."""
        batch, row = self._context.batch, 0
        for span in spans:
            end = row + span.stop - span.start
            batch.tokens[row:end] = span.slot.tokens[span.start : span.stop]
            batch.positions[row:end] = self._positions[span.start : span.stop]
            batch.slots[row:end] = span.slot.id
            batch.outputs[row:end] = 0
            batch.outputs[end - 1] = span.has_output
            row = end
        return row

    def _collect(self, spans: Many[Span]) -> list[StepOutput]:
        """Choose the next token of every span that has an output; say what came of it."""
        events: dict[RunningRequest, list[Event]] = {}
        errors: dict[RunningRequest, EngineError] = {}
        for running, token, logprob in self._sample(spans):
            sampler = running.sampler
            sampler.accept(token)
            if sampler.error is not None:
                errors[running.request] = sampler.error
                continue
            shown = running.choice.accept(token, logprob, is_last=sampler.is_complete)
            events.setdefault(running.request, []).extend(shown)
            if running.choice.reason is None:
                self._scheduler.append(running.sequence, token)
            else:
                events[running.request] += self._end(running)
        for request in errors:
            events.pop(request, None)
            self._drop(request)
        failed = [StepOutput(r.request_id, error=error) for r, error in errors.items()]
        return failed + [
            StepOutput(r.request_id, tuple(list_)) for r, list_ in events.items() if list_
        ]

    def _sample(self, spans: Many[Span]) -> list[tuple[RunningChoice, int, TokenLogprob | None]]:
        """Return the next token of each choice whose newest token was decoded."""
        rows: list[tuple[RunningChoice, int]] = []
        end = 0
        for span in spans:
            end += span.stop - span.start
            if span.has_output:
                rows.append((self._choices[span.sequence], end - 1))
        if not rows:
            return []
        logits = self._context.logits(len(rows))
        measured = [self._prepare(running, logits[i]) for i, (running, _) in enumerate(rows)]
        likeliest = logits.argmax(axis=1).tolist()
        result = []
        for i, (running, batch_row) in enumerate(rows):
            chain = running.sampler.chain
            token = likeliest[i] if chain is None else chain.sample(self._context, batch_row)
            result.append((running, token, self._logprob(running.request, measured[i], token)))
        return result

    def _prepare(
        self, running: RunningChoice, row: NDArray[np.float32]
    ) -> NDArray[np.float32] | None:
        """Adjust a row for sampling; return the model's own logits if they are asked for."""
        raw = row.copy() if running.request.n_top is not None else None
        running.sampler.adjust(row)
        return raw

    def _logprob(
        self, request: RunningRequest, raw: NDArray[np.float32] | None, token: int
    ) -> TokenLogprob | None:
        if raw is None or request.n_top is None:
            return None
        return self._logprobs.read(raw, token, request.n_top)

    def _end(self, running: RunningChoice) -> list[Event]:
        """Free a choice that has ended; return the usage if it was the request's last."""
        self._release(running)
        request = running.request
        request.n_ended += 1
        if request.n_ended < len(request.choices):
            return []
        del self._requests[request.request_id]
        return [request.usage()]

    def _release(self, running: RunningChoice, *, forget: bool = False) -> None:
        if self._choices.pop(running.sequence, None) is not None:
            running.sampler.close()
            self._scheduler.release(running.sequence, forget=forget)

    def _drop(self, request: RunningRequest) -> None:
        del self._requests[request.request_id]
        for running in request.choices:
            self._release(running)

    def _fail(self, spans: Many[Span], error: DecodeError) -> list[StepOutput]:
        """End the requests of a failed step; what their slots held is lost."""
        failed = {self._choices[span.sequence].request: None for span in spans}
        for span in spans:
            self._context.keep(span.slot.id, 0)
            self._release(self._choices[span.sequence], forget=True)
        for request in failed:
            self._drop(request)
        return [StepOutput(r.request_id, error=EngineError(str(error))) for r in failed]


def create_core(**options: Any) -> LlamaCppCore:
    """Load a model; the fields of `LlamaCppOptions` are the options. Raises `ModelLoadError`."""
    settings = LlamaCppOptions(**options)
    return LlamaCppCore(*load(settings), settings)
