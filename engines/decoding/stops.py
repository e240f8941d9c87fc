"""Stop strings: find them in text that arrives in pieces, and never show a part of one."""

from __future__ import annotations

from collections.abc import Iterable


class StopScanner:
    """Releases text once it can no longer belong to a stop string.

    The stop that is complete first ends the text; of several complete at the same character
    the one that began first does. The outcome depends on the text only, not on how it was cut
    into pieces. Held back is the longest end of the text that some stop begins with: at most
    one character less than the longest stop.
    """

    __slots__ = ("_held", "_longest", "_stops")

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(dict.fromkeys(stop for stop in stops if stop))
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Add text; return what may be shown now, and whether a stop was met.

        After a stop nothing is held and nothing more is to be pushed.
        """
        if not self._stops:
            return text, False
        text = self._held + text
        start = self._find(text)
        if start is not None:
            self._held = ""
            return text[:start], True
        cut = len(text) - self._overlap(text)
        self._held = text[cut:]
        return text[:cut], False

    def flush(self) -> str:
        """Return what was held back: the text ended, so it was no stop."""
        held, self._held = self._held, ""
        return held

    def _find(self, text: str) -> int | None:
        """Return where the stop that ends `text` starts."""
        matches = [
            (start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0
        ]
        return min(matches)[1] if matches else None

    def _overlap(self, text: str) -> int:
        """Return the length of the longest end of `text` with which a stop begins."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
