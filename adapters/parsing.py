"""Find structure in a model's text while it streams: reasoning and tool calls.

They belong to the family, so engines emit text and an adapter's parser turns it into events.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Protocol

from engines.types import (
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)

ParsedEvent = TextDelta | ReasoningDelta | ToolCallDelta | Finish


class OutputParser(Protocol):
    """Turns the text events of one choice into finer events; one instance per choice."""

    def feed(self, delta: TextDelta) -> list[ParsedEvent]:
        """Take new text; return what is certain by now. Undecided text is held back."""
        ...

    def finish(self, index: int, reason: FinishReason) -> list[ParsedEvent]:
        """Take the end of the choice; return what was held back, then its `Finish`."""
        ...


class PlainText:
    """The parser of families whose answers are nothing but text."""

    def feed(self, delta: TextDelta) -> list[ParsedEvent]:
        """Pass the text on."""
        return [delta]

    def finish(self, index: int, reason: FinishReason) -> list[ParsedEvent]:
        """Pass the end on."""
        return [Finish(index, reason)]


class Chain:
    """Several parsers, each reading the text that the one before it leaves."""

    def __init__(self, *parsers: OutputParser) -> None:
        self._parsers = parsers

    def feed(self, delta: TextDelta) -> list[ParsedEvent]:
        """Pass text through all parsers."""
        return self._pass_on([delta])

    def finish(self, index: int, reason: FinishReason) -> list[ParsedEvent]:
        """Pass the end through all parsers."""
        return self._pass_on([Finish(index, reason)])

    def _pass_on(self, events: list[ParsedEvent]) -> list[ParsedEvent]:
        for parser in self._parsers:
            events = [new for event in events for new in _apply(parser, event)]
        return events


def _apply(parser: OutputParser, event: ParsedEvent) -> list[ParsedEvent]:
    if isinstance(event, TextDelta):
        return parser.feed(event)
    if isinstance(event, Finish):
        return parser.finish(event.index, event.reason)
    return [event]


class HoldingParser(ABC):
    """What parsers that hold text back share: each text keeps the logprobs that belong to it.

    Logprobs come with the engine's pieces of text and go out with the next text that is
    certain; those of text that turns out to be no answer (tags, calls) are dropped.
    """

    def __init__(self) -> None:
        self._logprobs: list[tuple[int, tuple[TokenLogprob, ...]]] = []
        self._fed = 0

    def feed(self, delta: TextDelta) -> list[ParsedEvent]:
        """Take new text; return what is certain by now."""
        if not delta.text and self._is_answer() and not self._undecided():
            return [delta]  # a token without text of its own still has its logprobs
        if delta.logprobs:
            self._logprobs.append((self._fed, delta.logprobs))
        self._fed += len(delta.text)
        return self._with_logprobs(self._scan(delta.index, delta.text))

    def finish(self, index: int, reason: FinishReason) -> list[ParsedEvent]:
        """Take the end of the choice; return what was held back, then its `Finish`."""
        events = self._with_logprobs(self._flush(index))
        return [*events, Finish(index, self._final_reason(reason))]

    @abstractmethod
    def _scan(self, index: int, text: str) -> Iterable[ParsedEvent]: ...

    @abstractmethod
    def _flush(self, index: int) -> Iterable[ParsedEvent]: ...

    @abstractmethod
    def _undecided(self) -> int:
        """Return how many characters are held back."""

    @abstractmethod
    def _is_answer(self) -> bool:
        """Tell whether new text would be text of the answer, for all that is known."""

    def _final_reason(self, reason: FinishReason) -> FinishReason:
        return reason

    def _with_logprobs(self, made: Iterable[ParsedEvent]) -> list[ParsedEvent]:
        events = [event for event in made if not isinstance(event, TextDelta) or event.text]
        decided = self._fed - self._undecided()
        due = 0
        while due < len(self._logprobs) and self._logprobs[due][0] < decided:
            due += 1
        if not due:
            return events
        logprobs = tuple(one for _, ones in self._logprobs[:due] for one in ones)
        del self._logprobs[:due]
        for number in range(len(events) - 1, -1, -1):
            event = events[number]
            if isinstance(event, TextDelta):
                events[number] = TextDelta(event.index, event.text, logprobs)
                break
        return events
