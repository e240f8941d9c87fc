"""The llama.cpp core: one model, one context, one `llama_decode` a step over all requests.

A request becomes one sequence per choice. What waits, runs and is decoded when is the
scheduler's; this file moves tokens between it, the memory and the samplers, and says what came
of it. A seed repeats an answer as far as llama.cpp computes the same logits again; with flash
attention that depends, in the last digits, on what else is in the batch.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from collections.abc import Sequence as Many
from typing import Any

import numpy as np

from engines.core import EmbeddedPart, StepOutput
from engines.decoding.logprobs import LogprobReader
from engines.errors import EngineError, EngineUnavailable, InvalidRequest
from engines.llama_cpp.binding import Context, DecodeError, Model
from engines.llama_cpp.config import PROMPT_OUTPUTS, LlamaCppOptions
from engines.llama_cpp.drafting import Drafter, PromptLookup
from engines.llama_cpp.embedding import Embedder
from engines.llama_cpp.encoder import EncoderCore
from engines.llama_cpp.intake import Intake
from engines.llama_cpp.loading import load_weights, open_context
from engines.llama_cpp.pace import Pace
from engines.llama_cpp.picking import Outputs, TokenPicker
from engines.llama_cpp.requests import RunningChoice, RunningRequest
from engines.llama_cpp.scheduler import Placement, Scheduler, Span
from engines.llama_cpp.sizing import Size
from engines.llama_cpp.slots import Sequence, Sharing
from engines.options import read_options
from engines.types import EmbeddingRequest, Event, GenerationRequest, Prompt

# A device that fails this often without one success in between is lost: a new process may help.
MAX_FAILED_STEPS = 3


class LlamaCppCore:
    """A loaded GGUF model and its running requests; see `engines.core.Core`."""

    def __init__(
        self, model: Model, context: Context, size: Size, options: LlamaCppOptions
    ) -> None:
        self._model = model
        self._context = context
        logprobs = LogprobReader(model.vocabulary.pieces, model.vocabulary.names)
        self._intake = Intake(model.vocabulary, logprobs, size.context_length)
        self._picker = TokenPicker(context, logprobs)
        self._scheduler = Scheduler(
            n_slots=size.n_slots,
            context_length=size.context_length,
            n_batch=options.batch_size(size.n_slots),
            prefill_chunk=options.prefill_chunk,
            max_queue=options.max_queue,
            n_cells=options.n_cells or 0,
            prompt_outputs=PROMPT_OUTPUTS,
            sharing=Sharing(can_cut=not model.has_recurrent_state),
        )
        self._pace = Pace(options.step_seconds, options.prefill_chunk)
        self._drafter = _drafter(model, options)
        self._draft_tokens, self._draft_slots = options.draft_tokens, options.draft_slots
        self._positions = np.arange(size.context_length, dtype=np.int32)
        self._embedder = Embedder(model, options, context.n_threads)
        self._requests: dict[str, RunningRequest] = {}
        self._choices: dict[Sequence, RunningChoice] = {}
        self._n_failed = 0
        self._is_closed = False
        self.detail = (
            f"{model.description}, {size.n_slots} slots of {size.context_length} tokens, "
            f"{context.note}"
        )

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
        self._scheduler.check_room()
        running = self._intake.prepare(request)
        self._requests[request.request_id] = running
        self._choices.update((choice.sequence, choice) for choice in running.choices)
        self._scheduler.submit([choice.sequence for choice in running.choices])

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
        generating = self._scheduler.generating()
        self._draft(generating)
        spans = self._scheduler.plan(self._pace.budget(len(generating)))
        if not spans:
            return []
        try:
            self._decode(spans)
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
        return tuple(self._intake.tokenizer.encode(prompt))

    def embed(self, request: EmbeddingRequest) -> Generator[EmbeddedPart, None, None]:
        """Yield the vectors of a request; see `engines.core.EmbedsInParts`."""
        if self._is_closed:
            raise EngineUnavailable("the llama_cpp engine is closed")
        return self._embedder.embed(request)

    def close(self) -> None:
        """Free the model; safe to call twice."""
        for request in list(self._requests.values()):
            self._drop(request)
        self._is_closed = True
        if self._drafter is not None:
            self._drafter.close()
        self._embedder.close()
        self._context.close()
        self._model.close()

    def _place(self, placement: Placement) -> None:
        """Make the memory of a slot hold what its sequence will build on."""
        for evicted in placement.evicted:
            self._context.keep(evicted.id, 0)
        slot, source, length = placement.slot, placement.source, placement.length
        if source is slot:
            cached = self._context.keep(slot.id, length)
        else:
            cached = self._context.copy(source.id, slot.id, length)
        if cached != length:
            self._scheduler.correct(placement, cached)

    def _draft(self, generating: Many[Sequence]) -> None:
        """Guess what comes next in the answers, unless too many would share the guessing."""
        if self._drafter is None or len(generating) > self._draft_slots:
            return
        slots = {each.slot: each for each in generating if each.slot is not None}
        guesses = self._drafter.propose(dict.fromkeys(slots, self._draft_tokens))
        for slot, tokens in guesses.items():
            self._scheduler.draft(slots[slot], tokens[: self._draft_tokens])

    def _decode(self, spans: Many[Span]) -> None:
        """Run a step. Raises `DecodeError`."""
        n_prompt = sum(span.n_tokens for span in spans if span.is_prompt)
        started = time.perf_counter()
        self._context.decode(self._fill(spans))
        self._pace.note(n_prompt, time.perf_counter() - started)

    def _fill(self, spans: Many[Span]) -> int:
        """Write the spans into the batch; return its number of rows."""
        batch, row = self._context.batch, 0
        for span in spans:
            end = row + span.n_tokens
            batch.tokens[row:end] = span.slot.tokens[span.start : span.stop]
            batch.positions[row:end] = self._positions[span.start : span.stop]
            batch.slots[row:end] = span.slot.id
            batch.outputs[row : end - span.n_outputs] = 0
            batch.outputs[end - span.n_outputs : end] = 1
            row = end
        return row

    def _collect(self, spans: Many[Span]) -> list[StepOutput]:
        """Choose the next tokens of all that generate; say what came of it."""
        if not any(span.n_outputs for span in spans):
            return []
        choices = [self._choices[span.sequence] for span in spans]
        events: dict[RunningRequest, list[Event]] = {}
        errors: dict[RunningRequest, EngineError] = {}
        for each in self._picker.split(choices, spans):
            request = each.running.request
            if each.span.is_prompt:
                each.running.read_prompt(each.logits)
            elif request not in errors:
                try:
                    events.setdefault(request, []).extend(self._grow(each))
                except EngineError as error:
                    errors[request] = error
                    del events[request]
                    self._drop(request)
        failed = [StepOutput(r.request_id, error=error) for r, error in errors.items()]
        return failed + [
            StepOutput(r.request_id, tuple(list_)) for r, list_ in events.items() if list_
        ]

    def _grow(self, outputs: Outputs) -> list[Event]:
        """Let a choice grow by a token, and by those behind it that were rightly guessed.

        Raises `EngineError` when its constraint fails.
        """
        running, slot = outputs.running, outputs.span.slot
        events = running.take_echo()
        if not running.choice.may_grow:
            return [*events, *running.choice.end(), *self._end(running)]
        for row in range(outputs.span.n_outputs):
            pick = self._picker.pick(outputs, row)
            sampler = running.sampler
            sampler.accept(pick.token)
            if sampler.error is not None:
                raise sampler.error
            events += running.choice.accept(pick.token, pick.logprob, is_last=sampler.is_complete)
            if running.choice.reason is not None:
                return events + self._end(running)
            if not self._scheduler.append(running.sequence, pick.token):
                break
        if outputs.span.n_outputs > 1:
            self._context.keep(slot.id, slot.cached)
        return events

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


def _drafter(model: Model, options: LlamaCppOptions) -> Drafter | None:
    """Return what guesses tokens; nothing can for a memory that cannot drop wrong guesses."""
    if options.speculation is None or model.has_recurrent_state:
        return None
    return PromptLookup()


def create_core(**options: Any) -> LlamaCppCore | EncoderCore:
    """Load a model; the fields of `LlamaCppOptions` are the options. Raises `ModelLoadError`."""
    settings = read_options(LlamaCppOptions, options)
    weights = load_weights(settings)
    if weights.model.is_encoder:
        return EncoderCore(weights.model, settings)
    return LlamaCppCore(weights.model, *open_context(weights, settings), settings)
