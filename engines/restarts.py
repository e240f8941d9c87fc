"""When to start a dead engine again, and which requests not to run again."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from engines.types import EmbeddingRequest, GenerationRequest

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """How eagerly a dead child is replaced. All times are in seconds.

    The first restart is immediate, then 1, 2, 4 … `longest_delay`; a child that stays up for
    `healthy_after` starts the row anew. After `circuit_failures` within `circuit_window` the
    circuit is open: one attempt every `circuit_delay`.
    """

    longest_delay: float = 60.0
    healthy_after: float = 180.0
    circuit_failures: int = 5
    circuit_window: float = 600.0
    circuit_delay: float = 60.0


class RestartPolicy:
    """Turns a history of failures into the delay before the next attempt."""

    def __init__(self, limits: RestartLimits, clock: Clock = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._failures: deque[float] = deque(maxlen=max(limits.circuit_failures, 1))
        self._in_a_row = 0
        self._ready_at: float | None = None

    def note_ready(self) -> None:
        """The child has loaded its model."""
        self._ready_at = self._clock()

    def note_failure(self) -> float:
        """The child died, or could not load: return the seconds to wait before the next."""
        now = self._clock()
        was_up = self._ready_at is not None and now - self._ready_at >= self._limits.healthy_after
        self._ready_at = None
        self._in_a_row = 1 if was_up else self._in_a_row + 1
        self._failures.append(now)
        if self.is_circuit_open:
            return self._limits.circuit_delay
        exponent = min(self._in_a_row - 2, 32)
        return 0.0 if exponent < 0 else min(2.0**exponent, self._limits.longest_delay)

    @property
    def is_circuit_open(self) -> bool:
        """Whether so many failures fell into the window that only slow attempts follow."""
        is_full = len(self._failures) == self._failures.maxlen
        return is_full and self._clock() - self._failures[0] <= self._limits.circuit_window


class Quarantine:
    """Remembers what was running when the engine crashed, to refuse it before a third crash.

    Requests are known by a hash of what they ask. Whoever merely ran beside the culprit is
    cleared by an answer that completes, and every entry is forgotten after `memory` seconds.
    """

    def __init__(
        self,
        max_crashes: int = 2,
        memory: float = 3600.0,
        max_entries: int = 10_000,
        clock: Clock = time.monotonic,
    ) -> None:
        self._max_crashes = max_crashes
        self._memory = memory
        self._max_entries = max_entries
        self._clock = clock
        self._crashes: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether anything is remembered: while nothing is, no request need be hashed."""
        return bool(self._crashes)

    def note_crash(self, fingerprint: bytes) -> None:
        """A request with this fingerprint was running when the engine crashed."""
        count = self._count(fingerprint)
        self._crashes[fingerprint] = (count + 1, self._clock())
        self._crashes.move_to_end(fingerprint)
        while len(self._crashes) > self._max_entries:
            self._crashes.popitem(last=False)

    def note_success(self, fingerprint: bytes) -> None:
        """A request with this fingerprint was answered to its end."""
        self._crashes.pop(fingerprint, None)

    def is_quarantined(self, fingerprint: bytes) -> bool:
        """Whether a request with this fingerprint must not be run."""
        return self._count(fingerprint) >= self._max_crashes

    def _count(self, fingerprint: bytes) -> int:
        count, since = self._crashes.get(fingerprint, (0, 0.0))
        return count if self._clock() - since <= self._memory else 0


def fingerprint(request: GenerationRequest | EmbeddingRequest) -> bytes:
    """Hash what a request asks: equal for a retry of it."""
    content: tuple[object, ...]
    if isinstance(request, EmbeddingRequest):
        content = ("embed", [(type(p).__name__, p) for p in request.prompts], request.dimensions)
    else:
        content = (type(request.prompt).__name__, request.prompt, request.sampling, request.extra)
    return hashlib.blake2b(msgspec.msgpack.encode(content), digest_size=16).digest()
