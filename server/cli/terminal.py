"""What the commands print: answers as they come, notes, and errors in one line."""

from __future__ import annotations

import re
import sys
from contextlib import AbstractContextManager, nullcontext

import typer
from rich.console import Console
from rich.status import Status

# A model's text must not command the terminal (move the cursor, set the title, answer queries):
# control characters other than tab and line feed are shown as symbols, C1 controls as `\x9b`.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def is_terminal() -> bool:
    """Tell whether someone reads along: stdout is a terminal."""
    return sys.stdout.isatty()


def harmless(text: str) -> str:
    """Return `text` with its control characters made visible."""
    return _CONTROL.sub(_symbol, text)


def _symbol(match: re.Match[str]) -> str:
    number = ord(match[0])
    if number < 0x20:
        return chr(0x2400 + number)
    return "\u2421" if number == 0x7F else f"\\x{number:02x}"


def write(text: str, *, dim: bool = False) -> None:
    """Print a piece of an answer at once: as it is into a pipe, harmless on a terminal."""
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "replace").decode(encoding)
    if not is_terminal():
        typer.echo(text, nl=False, color=True)  # color: leave escape sequences in the data
        return
    shown = harmless(text)
    typer.echo(typer.style(shown, dim=True) if dim else shown, nl=False)


def note(text: str) -> None:
    """Print a line about the conversation, where someone reads along."""
    if is_terminal():
        typer.echo(typer.style(harmless(text), dim=True))


def error(problem: object) -> None:
    """Print what went wrong on stderr, in one line."""
    line = " ".join(harmless(str(problem).replace("\n", " ")).split())
    typer.secho(line, err=True, fg=typer.colors.RED)


def warn(text: str) -> None:
    """Print what is worth knowing on stderr, where it is in no script's way."""
    typer.echo(" ".join(harmless(text).split()), err=True)


def spinner(text: str) -> AbstractContextManager[Status | None]:
    """Show that something is under way, until it is stopped; nothing without a terminal."""
    return Console().status(text) if is_terminal() else nullcontext()
