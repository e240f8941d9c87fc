"""From a request to what runs: everything about it is checked and decided here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.decoding.choice import Choice, Limits
from engines.decoding.logprobs import LogprobReader, PromptEcho
from engines.decoding.prompt import PromptTokenizer
from engines.decoding.sampling_checks import check_sampling
from engines.errors import ContextLengthExceeded, InvalidParameter, UnsupportedParameter
from engines.llama_cpp.binding import Vocabulary
from engines.llama_cpp.constraints import CompiledConstraint, ConstraintCompiler
from engines.llama_cpp.requests import RunningChoice, RunningRequest
from engines.llama_cpp.sampling import TokenSampler
from engines.llama_cpp.slots import Sequence
from engines.types import GenerationRequest, PartsPrompt


class Intake:
    """Makes running requests for one model, of prompts and answers up to `context_length`."""

    def __init__(
        self, vocabulary: Vocabulary, logprobs: LogprobReader, context_length: int
    ) -> None:
        self.tokenizer = PromptTokenizer(vocabulary)
        self._vocabulary = vocabulary
        self._logprobs = logprobs
        self._constraints = ConstraintCompiler(vocabulary)
        self._context_length = context_length

    def prepare(self, request: GenerationRequest) -> RunningRequest:
        """Return the request with its choices; none of them runs yet. Raises `InvalidRequest`."""
        for name in request.extra:
            raise UnsupportedParameter(name, "llama_cpp")
        params = request.sampling
        tokens = self.tokenizer.encode(request.prompt, self._context_length)
        check_sampling(params, self._vocabulary.n_tokens)
        limits = self._limits(request, len(tokens))
        prompt = np.array(tokens, np.int32)
        asked = params.constraint
        constraint = self._constraints.compile(asked) if asked is not None else None
        running = RunningRequest(request.request_id, len(tokens), params.logprobs, [])
        for index in range(params.n):
            running.choices.append(
                self._choice(request, running, index, prompt, limits, constraint)
            )
        return running

    def _choice(
        self,
        request: GenerationRequest,
        running: RunningRequest,
        index: int,
        prompt: NDArray[np.int32],
        limits: Limits,
        constraint: CompiledConstraint | None,
    ) -> RunningChoice:
        params, vocabulary = request.sampling, self._vocabulary
        sequence = Sequence(
            request.request_id,
            prompt,
            max_length=len(prompt) + limits.max_tokens,
            priority=request.priority,
            needs_logits=params.echo and params.logprobs is not None,
        )
        echo = PromptEcho(self._logprobs, prompt, params.logprobs) if params.echo else None
        ends = limits.end_tokens
        state = constraint.start(ends) if constraint is not None else None
        sampler = TokenSampler(params, index, vocabulary.n_tokens, prompt, ends, state)
        choice = Choice(index, limits, vocabulary.pieces)
        return RunningChoice(running, sequence, sampler, choice, echo)

    def _limits(self, request: GenerationRequest, n_prompt: int) -> Limits:
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
            stop_ids = self.tokenizer.special_ids(prompt.stop_tokens)
            end_tokens.update(() if params.ignore_eos else stop_ids)
        max_tokens = self._max_tokens(n_prompt, params.max_tokens, 0 if params.echo else 1)
        return Limits(max_tokens, params.min_tokens, frozenset(end_tokens), stops)

    def _max_tokens(self, n_prompt: int, asked: int | None, least: int) -> int:
        """Return how many tokens a choice may generate. Raises `ContextLengthExceeded`."""
        if asked is not None and asked < least:
            raise InvalidParameter(
                "max_tokens", f"max_tokens must be at least {least}, not {asked}"
            )
        if n_prompt + (least if asked is None else asked) > self._context_length:
            raise ContextLengthExceeded(self._context_length, n_prompt, asked)
        return self._context_length - n_prompt if asked is None else asked
