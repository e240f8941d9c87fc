"""What the echo engine answers: the words of the prompt, cut and counted as a model's would be."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

from engines.errors import ContextLengthExceeded, UnsupportedParameter
from engines.types import (
    Event,
    Finish,
    FinishReason,
    GenerationRequest,
    MessagesPrompt,
    PartsPrompt,
    Prompt,
    SamplingParams,
    Text,
    TextDelta,
    Usage,
)

_PIECE = re.compile(r"\s*\S{1,6}|\s+")


@dataclass(frozen=True, slots=True)
class EchoOptions:
    """How an echo engine behaves. Times are in seconds.

    `tokens_per_second` 0 is as fast as it goes. The faults strike requests whose prompt contains
    `fault_trigger` (every one by default), before token number `crash_at` or `hang_at`. A crash
    is of the given kind in a child process and an `EngineCrashed` in-process; a hang sleeps, or
    spins without letting go. `load_seconds`, `fail_load` and `crash_load` do the same to loading.
    """

    tokens_per_second: float = 0.0
    prefill_seconds: float = 0.0
    context_length: int = 8192
    max_requests: int = 1024
    crash_at: int | None = None
    crash_kind: Literal["exit", "segfault", "kill", "raise"] = "exit"
    hang_at: int | None = None
    hang_kind: Literal["sleep", "spin"] = "sleep"
    fault_trigger: str = ""
    load_seconds: float = 0.0
    fail_load: bool = False
    crash_load: bool = False


def split_pieces(text: str) -> list[str]:
    """Cut a text into the engine's tokens: words of at most six characters with their spaces."""
    return _PIECE.findall(text)


def token_id(piece: str) -> int:
    """The id of a token: a checksum, since the vocabulary is open."""
    return zlib.crc32(piece.encode("utf-8", "surrogatepass"))


def prompt_pieces(prompt: Prompt) -> list[str]:
    """The tokens of a whole prompt; token ids count as one token each."""
    match prompt:
        case PartsPrompt():
            return [
                piece
                for part in prompt.parts
                for piece in (split_pieces(part.text) if isinstance(part, Text) else [part.token])
            ]
        case MessagesPrompt():
            return [piece for m in prompt.messages for piece in split_pieces(m.content)]
        case _:
            return [f" {number}" for number in prompt.token_ids]


def _answer_pieces(prompt: Prompt) -> list[str]:
    """What to answer: the last user message, or all the literal text of the prompt."""
    match prompt:
        case PartsPrompt():
            return split_pieces("".join(p.text for p in prompt.parts if isinstance(p, Text)))
        case MessagesPrompt():
            users = [m.content for m in prompt.messages if m.role == "user"]
            return split_pieces(users[-1] if users else "")
        case _:
            return prompt_pieces(prompt)


def _refuse_unsupported(request: GenerationRequest) -> None:
    """Raise `UnsupportedParameter` for what a repetition of the prompt cannot honour."""
    sampling = request.sampling
    refused: dict[str, bool] = {
        "echo": sampling.echo,
        "logprobs": sampling.logprobs is not None,
        "logit_bias": bool(sampling.logit_bias),
        "presence_penalty": sampling.presence_penalty != 0,
        "frequency_penalty": sampling.frequency_penalty != 0,
        "repetition_penalty": sampling.repetition_penalty != 1,
    } | dict.fromkeys(request.extra, True)
    if sampling.constraint is not None:
        refused[sampling.constraint.param] = True
    for param, is_refused in refused.items():
        if is_refused:
            raise UnsupportedParameter(param, "echo")


def _cut_at_stop(pieces: Sequence[str], stops: Sequence[str]) -> tuple[list[str], bool]:
    """Cut the tokens before the first stop string; tell whether one was there."""
    text = "".join(pieces)
    ends = [end for stop in stops if stop and (end := text.find(stop)) >= 0]
    if not ends:
        return list(pieces), False
    left, kept = min(ends), []
    for piece in pieces:
        if left <= 0:
            break
        kept.append(piece[:left])
        left -= len(piece)
    return kept, True


class EchoReply:
    """One request on its way: what it will answer, handed out token by token.

    Raises `InvalidRequest` for a request that cannot be run.
    """

    def __init__(self, request: GenerationRequest, options: EchoOptions) -> None:
        _refuse_unsupported(request)
        self.request = request
        self.sent = 0
        self.is_over = False
        self._options = options
        self._prompt_tokens = len(prompt_pieces(request.prompt))
        self._pieces, self._reason = self._plan(request.sampling)
        self._has_faults = options.fault_trigger in "".join(prompt_pieces(request.prompt))

    def _plan(self, sampling: SamplingParams) -> tuple[list[str], FinishReason]:
        room = self._options.context_length - self._prompt_tokens
        if room <= 0 or (sampling.max_tokens or 0) > room:
            raise ContextLengthExceeded(
                self._options.context_length, self._prompt_tokens, sampling.max_tokens
            )
        limit = room if sampling.max_tokens is None else sampling.max_tokens
        pieces = _answer_pieces(self.request.prompt)
        if sampling.ignore_eos or sampling.min_tokens > len(pieces):
            wanted = limit if sampling.ignore_eos else sampling.min_tokens
            pieces = list(islice(cycle(pieces or [" "]), wanted))
        return self._shorten(pieces, limit, sampling)

    def _shorten(
        self, pieces: list[str], limit: int, sampling: SamplingParams
    ) -> tuple[list[str], FinishReason]:
        """End the answer where a stop token, a stop string or the limit comes first."""
        ids = set(sampling.stop_token_ids)
        stop_at = next((i for i, piece in enumerate(pieces) if token_id(piece) in ids), None)
        is_stopped = stop_at is not None and stop_at < limit
        stops = [*sampling.stop, *getattr(self.request.prompt, "stop", ())]
        kept, has_stop = _cut_at_stop(pieces[:limit][:stop_at], stops)
        is_whole = len(pieces) <= limit and not sampling.ignore_eos
        return kept, "stop" if has_stop or is_stopped or is_whole else "length"

    @property
    def fault(self) -> Literal["crash", "hang"] | None:
        """The fault that is due before the next token."""
        if self._has_faults and self.sent == self._options.crash_at:
            return "crash"
        return "hang" if self._has_faults and self.sent == self._options.hang_at else None

    def advance(self) -> tuple[Event, ...]:
        """Return the events of the next token of every choice, or those of the end."""
        choices = range(self.request.sampling.n)
        if self.sent < len(self._pieces):
            self.sent += 1
            return tuple(TextDelta(i, self._pieces[self.sent - 1]) for i in choices)
        self.is_over = True
        usage = Usage(self._prompt_tokens, len(self._pieces) * len(choices))
        return (*(Finish(i, self._reason) for i in choices), usage)
