"""One choice of a request: from the tokens it is given to the events it shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from engines.decoding.detokenize import Utf8Decoder
from engines.decoding.logprobs import LogprobQueue
from engines.decoding.stops import StopScanner
from engines.types import Event, Finish, FinishReason, TextDelta, TokenLogprob


@dataclass(frozen=True, slots=True)
class Limits:
    """When an answer ends. Counts are tokens.

    It ends with reason "stop" at an `end_tokens` id, which shows no text, or at one of the
    `stops`, of which nothing is shown; with "length" after `max_tokens`. Stops are not looked
    for in the first `min_tokens` tokens.
    """

    max_tokens: int
    min_tokens: int = 0
    end_tokens: Collection[int] = frozenset()
    stops: tuple[str, ...] = ()


class Choice:
    """The text of one choice as it grows. `pieces[token]` are the bytes of a token.

    With `strips_first_space` a space in front of all of the text is left out, as decoders of
    SentencePiece do.
    `n_generated` counts every token chosen: the one that ended the answer and those that a
    stop string cut off too, as in vLLM.
    """

    def __init__(
        self,
        index: int,
        limits: Limits,
        pieces: Sequence[bytes],
        *,
        strips_first_space: bool = False,
    ) -> None:
        self.index = index
        self.n_generated = 0
        self.reason: FinishReason | None = None
        self._limits = limits
        self._pieces = pieces
        self._strips_space = strips_first_space
        self._decoder = Utf8Decoder()
        self._scanner = StopScanner(limits.stops)
        self._logprobs = LogprobQueue()
        self._n_decoded = 0
        self._n_shown = 0

    def accept(
        self, token: int, logprob: TokenLogprob | None = None, *, is_last: bool = False
    ) -> list[Event]:
        """Take the next token; return what it lets be shown. Sets `reason` at the end.

        `is_last` says that the answer is complete with this token.
        """
        self.n_generated += 1
        if token in self._limits.end_tokens:
            return self._end("stop", "")
        text = self._decode(token, logprob)
        shown, is_stopped = self._scan(text)
        if is_stopped:
            return self._finish("stop", shown, is_cut=True)
        if is_last:
            return self._end("stop", shown)
        if self.n_generated >= self._limits.max_tokens:
            return self._end("length", shown)
        return self._show(shown)

    @property
    def may_grow(self) -> bool:
        """Tell whether any token may be generated."""
        return self._limits.max_tokens > 0

    def end(self) -> list[Event]:
        """End the answer here, because it may not grow; return what shows that."""
        return self._end("length", "")

    def _decode(self, token: int, logprob: TokenLogprob | None) -> str:
        start = self._n_decoded
        piece = self._pieces[token]
        if self._strips_space and piece:
            piece, self._strips_space = piece.removeprefix(b" "), False
        text = self._decoder.push(piece)
        self._n_decoded += len(text)
        if logprob is not None:
            # The unfinished character will be one character, whatever becomes of it.
            end = self._n_decoded + self._decoder.has_pending
            self._logprobs.add(logprob, start, end)
        return text

    def _scan(self, text: str) -> tuple[str, bool]:
        if self.n_generated <= self._limits.min_tokens:
            return text, False
        return self._scanner.push(text)

    def _end(self, reason: FinishReason, shown: str) -> list[Event]:
        """End the answer: what was held back is shown after all, unless it completes a stop."""
        tail, is_stopped = self._scan(self._decoder.flush())
        if is_stopped:
            return self._finish("stop", shown + tail, is_cut=True)
        return self._finish(reason, shown + tail + self._scanner.flush(), is_cut=False)

    def _finish(self, reason: FinishReason, shown: str, *, is_cut: bool) -> list[Event]:
        self.reason = reason
        self._n_shown += len(shown)
        logprobs = self._logprobs.take_last(self._n_shown if is_cut else None)
        events: list[Event] = [Finish(self.index, reason)]
        if shown or logprobs:
            events.insert(0, TextDelta(self.index, shown, logprobs))
        return events

    def _show(self, shown: str) -> list[Event]:
        self._n_shown += len(shown)
        logprobs = self._logprobs.take(self._n_shown)
        if not shown and not logprobs:
            return []
        return [TextDelta(self.index, shown, logprobs)]
