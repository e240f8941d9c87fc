"""Bytes of tokens to text, never half a character."""

from __future__ import annotations

import codecs


class Utf8Decoder:
    """Decodes one choice's bytes as they come.

    At most three bytes, an unfinished character, are held back. Bytes that cannot be UTF-8
    become U+FFFD exactly as `bytes.decode("utf-8", "replace")` of the whole would make them.
    """

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, piece: bytes) -> str:
        """Return the text that is complete once `piece` has been added."""
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """Return what an unfinished character at the end becomes: U+FFFD, or nothing."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text

    @property
    def has_pending(self) -> bool:
        """Tell whether an unfinished character is held back."""
        return bool(self._decoder.getstate()[0])
