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
