"""Reading what the user types: lines from a terminal or a pipe, joined to messages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import TextIOWrapper

PROMPT = "> "
CONTINUED = ". "
_BLOCK = '"""'

ReadLine = Callable[[str], str]
"""Shows a prompt, returns a line without its end. Raises `EOFError` and `KeyboardInterrupt`."""


def is_interactive() -> bool:
    """Tell whether a user types and reads at a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def line_reader() -> ReadLine:
    """Return a reader with line editing and history at a terminal, else a plain one."""
    if not is_interactive():
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        return _read_plain
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory

    session: PromptSession[str] = PromptSession(history=InMemoryHistory())
    return session.prompt


def _read_plain(_prompt: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


def read_message(read_line: ReadLine) -> str:
    r"""Read one message: a line, lines that end in `\`, or a block between triple quotes.

    Raises `EOFError` when there is no further message; a message that the end of the input cuts
    off counts as it is.
    """
    line = read_line(PROMPT)
    if line.lstrip().startswith(_BLOCK):
        return _read_block(line.lstrip().removeprefix(_BLOCK), read_line)
    lines = []
    while line.endswith("\\"):
        lines.append(line[:-1])
        try:
            line = read_line(CONTINUED)
        except EOFError:
            line = ""
    return "\n".join([*lines, line])


def _read_block(text: str, read_line: ReadLine) -> str:
    while _BLOCK not in text:
        try:
            text += "\n" + read_line(CONTINUED)
        except EOFError:
            break
    return text.partition(_BLOCK)[0].strip("\n")
