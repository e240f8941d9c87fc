"""How far a load has come: told by a core's factory, heard by the process that runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


def _nobody(_: str) -> None:
    """Hear nothing: the load does not run in a child process."""


_listener: ContextVar[Callable[[str], None]] = ContextVar("load progress", default=_nobody)


def report_load_progress(detail: str) -> None:
    """Say that the load goes on, and with what: words for the log and for `Health`.

    For a load of several minutes: each report starts its time limit (`WatchLimits.load_timeout`)
    anew. To be called from the thread that called the factory, every few seconds at most.
    """
    _listener.get()(detail)


@contextmanager
def load_progress_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Have the reports made inside go to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
