"""Small changes to the text of an answer while it streams: trimming, replacing.

Each filter holds back only what the text to come could still change, so that a streamed answer
is the whole one to the last character, whatever pieces it comes in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from adapters.parsing import HoldingParser, ParsedEvent
from adapters.scanning import TagSearch, Trim
from engines.types import TextDelta


class TextFilter(Protocol):
    """Changes a text as it streams. One instance per choice."""

    @property
    def held_size(self) -> int:
        """Characters held back."""
        ...

    def feed(self, text: str) -> str:
        """Take new text; return what is certain by now."""
        ...

    def flush(self) -> str:
        """Take the end of the text; return what is left of it."""
        ...


class Stripped:
    """Drops what lies around an answer: one blank in front, or all, and whitespace at the end.

    One blank is what a label such as `ASSISTANT:` leaves to the model to write; more than one is
    the answer's own (the indentation of code). What a stop string leaves in front of it, such as
    a line's end, goes too.
    """

    def __init__(self, *, all_leading: bool = False) -> None:
        self._trim = Trim(skips_leading=all_leading)
        self._at_start = not all_leading

    @property
    def held_size(self) -> int:
        """Characters of whitespace held back."""
        return self._trim.held_size

    def feed(self, text: str) -> str:
        """Return what text is certain."""
        if self._at_start and text:
            text = text.removeprefix(" ")
            self._at_start = False
        return self._trim.feed(text) if text else ""

    def flush(self) -> str:
        """Drop the whitespace."""
        return ""


class Replaced:
    """Writes one text for another."""

    def __init__(self, old: str, new: str) -> None:
        self._old = old
        self._new = new
        self._search = TagSearch(old)

    @property
    def held_size(self) -> int:
        """Characters that may be the beginning of the old text."""
        return len(self._search.held)

    def feed(self, text: str) -> str:
        """Return what text is certain."""
        pieces = []
        rest: str | None = text
        while rest is not None:
            before, rest = self._search.feed(rest)
            pieces += [before, self._new] if rest is not None else [before]
        return "".join(pieces)

    def flush(self) -> str:
        """Return the beginning that had no end."""
        held, self._search = self._search.held, TagSearch(self._old)
        return held


class FilteredText(HoldingParser):
    """The parser of families whose answers are text to be filtered.

    Each filter reads what the one before it leaves.
    """

    def __init__(self, *filters: TextFilter) -> None:
        super().__init__()
        self._filters = filters

    def _scan(self, index: int, text: str) -> Iterable[ParsedEvent]:
        yield TextDelta(index, self._pass_on(text, self._filters))

    def _flush(self, index: int) -> Iterable[ParsedEvent]:
        last = ""
        for number, text_filter in enumerate(self._filters):
            last += self._pass_on(text_filter.flush(), self._filters[number + 1 :])
        yield TextDelta(index, last)

    def _undecided(self) -> int:
        return sum(text_filter.held_size for text_filter in self._filters)

    def _is_answer(self) -> bool:
        return True

    def _pass_on(self, text: str, filters: Iterable[TextFilter]) -> str:
        for text_filter in filters:
            text = text_filter.feed(text)
        return text
