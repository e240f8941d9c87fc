"""llama.cpp's own log: warnings and errors to Python's logging, the last errors kept."""

from __future__ import annotations

import logging
from collections import deque

logger = logging.getLogger("engines.llama_cpp.native")

# enum ggml_log_level (ggml.h); CONTINUE adds to the line before it.
WARNING, ERROR, CONTINUE = 3, 4, 5

_LEVELS = {WARNING: logging.WARNING, ERROR: logging.ERROR}
_KEPT_LINES = 8
# Said whenever an embedding's tokens are pooled outside of llama.cpp, as they are here.
_EXPECTED = "model default pooling_type is"


class NativeLog:
    """Takes the library's messages in; keeps the last errors so that a failure can say why."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=_KEPT_LINES)
        self._level = 0

    def write(self, level: int, text: str) -> None:
        """Take one message; `level` is ggml's."""
        if level != CONTINUE:
            self._level = level
        line = text.strip()
        python_level = _LEVELS.get(self._level)
        # A continued line is mostly a row of progress dots.
        if python_level is None or not line.strip(".") or _EXPECTED in line:
            return
        if python_level == logging.ERROR:
            self._errors.append(line)
        logger.log(python_level, "%s", line)

    def take_errors(self) -> tuple[str, ...]:
        """Return the last error lines, oldest first, and forget them."""
        errors = tuple(self._errors)
        self._errors.clear()
        return errors
