"""Tells an engine that hangs from one that is slow."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# A process that uses less of a processor than this is waiting, not computing.
_BUSY_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """How long a child may make no progress while it owes some. All times are in seconds.

    `stall_timeout`: no message and no processor time used: it is stopped or waits for itself.
    `step_timeout`: no message although it computes; above the longest single step of a large
    model on a slow processor (a chunk of a prompt takes minutes there). It also holds where
    processor time cannot be read.
    `load_timeout`: until the model is loaded, or since the load last reported progress.
    """

    stall_timeout: float = 15.0
    step_timeout: float = 300.0
    load_timeout: float = 1800.0


class Watchdog:
    """Counts how long a child has been silent, by looking at it every `interval` seconds.

    A look that comes late (this process was stopped, its event loop was busy) counts as one
    interval only, so that our own pauses are never held against the child.
    """

    def __init__(
        self,
        limits: WatchLimits,
        read_processor_seconds: Callable[[], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval = min(limits.stall_timeout, limits.step_timeout) / 20
        self._limits = limits
        self._read_processor_seconds = read_processor_seconds
        self._clock = clock
        self._frames = -1
        self._used: float | None = None
        self._looked_at = clock()
        self._silent = 0.0
        self._idle = 0.0

    def look(self, frames: int, is_owing: bool) -> str | None:
        """Look once; return why the child must be ended, or None.

        `frames` counts the child's messages so far; `is_owing` is whether any is due.
        """
        now = self._clock()
        elapsed = min(now - self._looked_at, 2 * self.interval)
        self._looked_at = now
        if frames != self._frames or not is_owing:
            self._frames, self._used = frames, None
            self._silent = self._idle = 0.0
            return None
        self._silent += elapsed
        self._idle = 0.0 if self._is_busy(elapsed) else self._idle + elapsed
        return self._verdict()

    def _is_busy(self, elapsed: float) -> bool:
        """Whether the child computed since the last look; true where that cannot be told."""
        before, self._used = self._used, self._read_processor_seconds()
        if self._used is None:
            return True
        return before is not None and self._used - before > _BUSY_SHARE * elapsed

    def _verdict(self) -> str | None:
        # The silence began up to one look before it was seen, and this look may be late by one.
        margin = 2 * self.interval
        if self._idle >= self._limits.stall_timeout - margin:
            return f"it made no progress for {self._limits.stall_timeout:g} s"
        if self._silent >= self._limits.step_timeout - margin:
            return f"one step took longer than {self._limits.step_timeout:g} s"
        return None


def processor_seconds(pid: int) -> float | None:
    """Processor time that all threads of a process have used; None where that tells nothing.

    That is: on systems without /proc, and while the process waits for a disk (a model that is
    read on first touch). Source: proc(5), /proc/[pid]/stat: field 3 is the state, 14 and 15 are
    utime and stime in clock ticks.
    """
    if sys.platform != "linux":
        return None
    try:
        # The second field, the name in parentheses, may itself contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] == b"D":
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
