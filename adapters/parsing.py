"""Find structure in a model's text while it streams: reasoning and tool calls.

They belong to the family, so engines emit text and an adapter's parser turns it into events.
"""

from __future__ import annotations

from typing import Protocol

from engines.types import Finish, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta

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
