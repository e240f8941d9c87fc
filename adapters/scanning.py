"""Two small scanners of streamed text: up to a tag, and without the whitespace at the ends.

Each holds back only what the text to come could still change, and costs time linear in the text.
"""

from __future__ import annotations


class TagSearch:
    """Text up to a tag as it streams; what may be the beginning of the tag is held back."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """Return the text that precedes the tag for certain, and what follows it, if it came."""
        text = self.held + text
        before, tag, rest = text.partition(self._tag)
        if tag:
            self.held = ""
            return before, rest
        cut = text.find(self._tag[0], max(0, len(text) - len(self._tag) + 1))
        while cut >= 0 and not self._tag.startswith(text[cut:]):
            cut = text.find(self._tag[0], cut + 1)
        if cut < 0:
            cut = len(text)
        self.held = text[cut:]
        return text[:cut], None


class Trim:
    """Text without the whitespace at its end, and its beginning if asked, as it streams."""

    def __init__(self, *, skips_leading: bool = False) -> None:
        self._skips_leading = skips_leading
        self._space: list[str] = []
        self.held_size = 0

    def feed(self, text: str) -> str:
        """Return what text is certain; whitespace at the end is held back."""
        if self._skips_leading:
            text = text.lstrip()
            self._skips_leading = not text
        words = text.rstrip()
        if not words:
            self._hold(text)
            return ""
        certain = self.flush() + words
        self._hold(text[len(words) :])
        return certain

    def flush(self) -> str:
        """Return the whitespace held back."""
        space = "".join(self._space)
        self._space.clear()
        self.held_size = 0
        return space

    def _hold(self, space: str) -> None:
        if space:
            self._space.append(space)
            self.held_size += len(space)
