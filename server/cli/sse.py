"""Server-sent events from bytes, after the WHATWG's event stream format.

Lines end at LF, CR and CRLF only: the line separators of Unicode (U+0085, U+2028), at which
`str.splitlines` splits too, are part of a model's text.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """An event or a line of the stream is larger than the decoder accepts."""


class EventDecoder:
    """Turns the bytes of a stream, cut anywhere, into the data of its events.

    `max_bytes` bounds one event and one line, so that a stream without line ends cannot fill
    the memory.
    """

    def __init__(self, max_bytes: int = 4 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._size = 0
        self._is_after_cr = False
        self._is_first_line = True

    def feed(self, block: bytes) -> list[str]:
        """Return the data of each event that `block` completes; its lines are joined by LF.

        Bytes that are not UTF-8 become U+FFFD. An event that the stream's end cuts off is never
        returned. Raises `EventTooLarge`.
        """
        if self._is_after_cr and block:
            # The LF of a CRLF that was cut in two: its CR has ended the line already.
            block = block.removeprefix(b"\n")
            self._is_after_cr = False
        if not block:
            return []
        self._is_after_cr = block.endswith(b"\r")
        *ends, rest = _LINE_END.split(block)
        events = []
        for end in ends:
            self._add(end)
            line = b"".join(self._line)
            self._line.clear()
            if (data := self._take(line)) is not None:
                events.append(data)
        self._add(rest)
        return events

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._max_bytes:
            raise EventTooLarge(f"an event of the stream is larger than {self._max_bytes} bytes")
        self._line.append(part)

    def _take(self, line: bytes) -> str | None:
        """Take a whole line; return the event's data if the line ends an event that has any."""
        if self._is_first_line:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._is_first_line = False
        if not line:
            data, self._data, self._size = self._data, [], 0
            return b"\n".join(data).decode("utf-8", "replace") if data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        else:
            self._size -= len(line)
        return None
