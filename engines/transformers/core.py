"""The transformers core: one model, and one forward pass a step over all running sequences.

A step computes a bounded piece of the oldest prompt that waits, then one token of every sequence
in the batch. Sequences join and leave at any step, without any other being disturbed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch

from engines.core import Core, StepOutput
from engines.decoding.choice import Choice, Limits
from engines.decoding.logprobs import LogprobReader
from engines.decoding.prompt import PromptTokenizer
from engines.decoding.sampling_checks import check_sampling
from engines.errors import (
    EngineError,
    EngineOverloaded,
    EngineUnavailable,
    InvalidRequest,
)
from engines.transformers.batch import Batch, Prefilled, Row
from engines.transformers.config import TransformersOptions
from engines.transformers.loading import Runnable, load, prepare
from engines.transformers.parameters import check_supported, resolve_max_tokens
from engines.transformers.references import resolve, run_first
from engines.transformers.requests import RunningChoice, RunningRequest
from engines.transformers.sampling import TokenSampler
from engines.transformers.selfcheck import usable_slots
from engines.transformers.streams import StreamCore
from engines.types import (
    Event,
    GenerationRequest,
    PartsPrompt,
    Prompt,
    SamplingParams,
    TokenLogprob,
)

logger = logging.getLogger(__name__)

# A device that fails this often without one success in between is lost: a new process may help.
MAX_FAILED_STEPS = 3
# What this engine honours; a parameter it does not know yet must be refused, not ignored.
_HONOURED = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty"}
    | {"frequency_penalty", "seed", "max_tokens", "min_tokens", "ignore_eos", "stop"}
    | {"stop_token_ids", "logit_bias", "logprobs", "n", "typical_p"}
)


class TransformersCore:
    """A loaded model and its running requests; see `engines.core.Core`."""

    def __init__(self, runnable: Runnable, options: TransformersOptions) -> None:
        self._runner = runnable.runner
        self._vocabulary = runnable.vocabulary
        self._end_tokens = runnable.end_tokens
        self._tokenizer = PromptTokenizer(runnable.vocabulary)
        self._logprobs = LogprobReader(self._vocabulary.pieces, self._vocabulary.names)
        self._context_length = runnable.context_length
        self._options = options
        n_slots = usable_slots(runnable, options)
        self._batch = Batch(runnable.runner, n_slots)
        self._requests: dict[str, RunningRequest] = {}
        self._waiting: deque[RunningRequest] = deque()
        self._joined: dict[Row, RunningChoice] = {}
        self._n_failed = 0
        self._is_closed = False
        self.detail = f"{runnable.description}, {n_slots} slots of {runnable.context_length} tokens"

    @property
    def context_length(self) -> int:
        """Tokens one request may hold, prompt and answer together."""
        return self._context_length

    def submit(self, request: GenerationRequest) -> None:
        """Take a request in. Raises `InvalidRequest`, `EngineOverloaded`, `EngineUnavailable`."""
        if self._is_closed:
            raise EngineUnavailable("the transformers engine is closed")
        if request.request_id in self._requests:
            raise InvalidRequest(f"request id {request.request_id!r} is in use")
        check_supported(request, _HONOURED)
        self._check_room()
        prompt = self._encode(request.prompt, self.context_length)
        check_sampling(request.sampling, self._runner.n_vocab)
        asked = request.sampling.max_tokens
        max_tokens = resolve_max_tokens(len(prompt), asked, self.context_length)
        self._start(request, prompt, self._limits(request, max_tokens))

    def cancel(self, request_id: str) -> None:
        """Drop a request and free what it held; unknown ids are ignored."""
        request = self._requests.get(request_id)
        if request is not None:
            self._drop(request)

    def has_work(self) -> bool:
        """Tell whether `step` would advance anything."""
        return bool(self._requests)

    def step(self) -> list[StepOutput]:
        """Advance every running request once; a failed computation ends those that were in it.

        Raises after several failures in a row: the core is of no use then.
        """
        with torch.inference_mode():
            return self._step()

    def _step(self) -> list[StepOutput]:
        outputs = self._admit()
        if not self._batch.rows:
            return outputs
        try:
            logits = self._batch.step()
        except Exception as error:
            requests = {running.request for running in self._joined.values()}
            return outputs + self._fail(requests, error)
        self._n_failed = 0
        return outputs + self._collect(logits)

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids exactly as a request with this prompt would use them."""
        if self._is_closed:
            raise EngineUnavailable("the transformers engine is closed")
        return self._encode(prompt)

    def close(self) -> None:
        """Free the model; safe to call twice."""
        for request in list(self._requests.values()):
            self._drop(request)
        self._is_closed = True
        self._batch.clear()

    def _check_room(self) -> None:
        n_running = len(self._batch.rows)
        if len(self._waiting) >= self._options.max_queue + self._batch.max_rows - n_running:
            raise EngineOverloaded(
                f"all {self._batch.max_rows} slots are busy and {len(self._waiting)} requests "
                "wait; try again later"
            )

    def _encode(self, prompt: Prompt, limit: int | None = None) -> tuple[int, ...]:
        """Return the ids of a prompt, with those that the model itself needs around it."""
        ids = tuple(self._tokenizer.encode(prompt, limit))
        prefix, suffix = self._runner.prefix, self._runner.suffix
        if ids[: len(prefix)] != prefix:
            ids = prefix + ids
        return ids if ids[len(ids) - len(suffix) :] == suffix else ids + suffix

    def _limits(self, request: GenerationRequest, max_tokens: int) -> Limits:
        """Return when the request's choices end.

        `ignore_eos` is for the model's end-of-generation tokens and the template's stop tokens;
        what the client named in `stop` and `stop_token_ids` still ends the answer.
        """
        params, prompt = request.sampling, request.prompt
        end_tokens = set(params.stop_token_ids)
        stops = params.stop
        if not params.ignore_eos:
            end_tokens |= self._end_tokens
        if isinstance(prompt, PartsPrompt):
            stops += prompt.stop
            stop_ids = self._tokenizer.special_ids(prompt.stop_tokens)
            end_tokens.update(() if params.ignore_eos else stop_ids)
        return Limits(max_tokens, params.min_tokens, frozenset(end_tokens), stops)

    def _start(self, request: GenerationRequest, prompt: tuple[int, ...], limits: Limits) -> None:
        """Make the request's choices and let it wait for its turn."""
        params = request.sampling
        running = RunningRequest(request.request_id, prompt, params.logprobs)
        for index in range(params.n):
            sampler = self._sampler(params, index, prompt, limits)
            choice = Choice(
                index,
                limits,
                self._vocabulary.pieces,
                strips_first_space=self._vocabulary.strips_first_space,
            )
            running.choices.append(RunningChoice(running, sampler, choice))
        running.waiting.extend(running.choices)
        self._requests[request.request_id] = running
        self._waiting.append(running)

    def _sampler(
        self, params: SamplingParams, index: int, prompt: tuple[int, ...], limits: Limits
    ) -> TokenSampler:
        return TokenSampler(params, index, self._runner.n_vocab, prompt, limits.end_tokens)

    def _admit(self) -> list[StepOutput]:
        """Compute waiting prompts, so many tokens of them, and let their choices join."""
        budget = self._options.prefill_chunk
        while self._waiting and self._batch.n_free and budget > 0:
            request = self._waiting[0]
            try:
                budget -= self._prefill(request, budget)
            except Exception as error:
                return self._fail({request}, error)
            if request.prefilled is None:
                break
            while request.waiting and self._batch.n_free:
                self._join(request.waiting.popleft(), request.prefilled)
            if not request.waiting:
                self._waiting.popleft()
                request.prefilled = None
        return []

    def _prefill(self, request: RunningRequest, budget: int) -> int:
        """Compute a piece of a prompt; return how many tokens, at least 1."""
        if request.prefilled is not None:
            return 1
        if request.prefill is None:
            request.prefill = self._runner.prefill(request.prompt)
        n_tokens = request.prefill.advance(budget)
        if not request.prefill.n_left:
            request.prefilled, request.prefill = request.prefill.finish(), None
        return max(n_tokens, 1)

    def _join(self, running: RunningChoice, prefilled: Prefilled) -> None:
        running.row = self._batch.join(prefilled)
        self._joined[running.row] = running

    def _collect(self, logits: torch.Tensor) -> list[StepOutput]:
        """Choose the next token of every row; say what came of it."""
        events: dict[RunningRequest, list[Event]] = {}
        failed: set[RunningRequest] = set()
        is_finite = logits.amax(dim=1).isfinite().tolist()
        # A copy: who ends makes room, and another row moves there.
        for row, numbers, is_sound in zip(list(self._batch.rows), logits, is_finite, strict=True):
            running = self._joined[row]
            if not is_sound:
                failed.add(running.request)
                continue
            token, logprob = self._choose(running, numbers)
            events.setdefault(running.request, []).extend(running.choice.accept(token, logprob))
            if running.choice.reason is None:
                running.sampler.accept(token)
                row.token = token
            else:
                events[running.request] += self._end(running)
        outputs = [self._fail_unsound(request) for request in failed]
        shown = ((r, e) for r, e in events.items() if e and r not in failed)
        return outputs + [StepOutput(r.request_id, tuple(e)) for r, e in shown]

    def _choose(
        self, running: RunningChoice, logits: torch.Tensor
    ) -> tuple[int, TokenLogprob | None]:
        """Return a choice's next token, and its logprob if it is asked for."""
        n_top = running.request.n_top
        raw = logits.clone() if n_top is not None else None
        running.sampler.adjust(logits)
        token = running.sampler.choose(logits)
        if raw is None or n_top is None:
            return token, None
        return token, self._logprobs.read(raw.numpy(), token, n_top)

    def _end(self, running: RunningChoice) -> list[Event]:
        """Free a choice that has ended; return the usage if it was the request's last."""
        self._release(running)
        request = running.request
        request.n_ended += 1
        if request.n_ended < len(request.choices):
            return []
        del self._requests[request.request_id]
        return [request.usage()]

    def _release(self, running: RunningChoice, *, clear: bool = False) -> None:
        if running.row is not None:
            self._batch.leave(running.row, clear=clear)
            del self._joined[running.row]
            running.row = None

    def _drop(self, request: RunningRequest, *, clear: bool = False) -> None:
        del self._requests[request.request_id]
        if request in self._waiting:
            self._waiting.remove(request)
        for running in request.choices:
            self._release(running, clear=clear)

    def _fail_unsound(self, request: RunningRequest) -> StepOutput:
        """End a request whose logits are no numbers, and wipe them out of the memory."""
        self._drop(request, clear=True)
        return StepOutput(
            request.request_id,
            error=EngineError("the model computed numbers that are not finite for this request"),
        )

    def _fail(self, requests: Iterable[RunningRequest], error: Exception) -> list[StepOutput]:
        """End the requests of a failed computation."""
        self._n_failed += 1
        if self._n_failed >= MAX_FAILED_STEPS:
            raise error
        logger.error("a computation failed", exc_info=error)
        failed = list(requests)
        for request in failed:
            self._drop(request)
        failure = EngineError(f"the computation failed ({type(error).__name__})")
        return [StepOutput(request.request_id, error=failure) for request in failed]


def create_core(**options: Any) -> Core:
    """Load a model; the fields of `TransformersOptions` are the options.

    Raises `ModelLoadError` and `MissingDependency`.
    """
    settings = TransformersOptions(**options)
    run_first(settings.run_first)
    loaded = load(settings)
    generate = resolve(settings.stream)() if settings.stream is not None else None
    if generate is not None:
        return StreamCore(loaded, generate, settings)
    return TransformersCore(prepare(loaded, settings), settings)
