"""How many threads a model that runs on the processor should use when nobody said."""

from __future__ import annotations

import math
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_CPU_INFO = Path("/proc/cpuinfo")
_CPU_TIMES = Path("/proc/stat")


@dataclass(frozen=True, slots=True)
class Processors:
    """What this process may use: physical cores, and logical CPUs of the kind `name`.

    Both are at least 1 and within a container's quota, because threads beyond it only wait for
    each other.
    """

    cores: int
    cpus: int
    name: str

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """Counts of threads worth trying, the most first."""
        counts = {1, 2, self.cores // 2, self.cores, self.cpus}
        return tuple(sorted((n for n in counts if 1 <= n <= self.cpus), reverse=True))


def processors() -> Processors:
    """Look at the machine."""
    usable = _usable_cpus()
    quota = _quota()
    limit = len(usable) if quota is None else max(1, math.ceil(quota))
    cores = len({_siblings(cpu) for cpu in usable})
    return Processors(min(cores, limit), min(len(usable), limit), _name())


def default_threads() -> int:
    """Return the number of physical cores this process may use, at least 1.

    Hyper-threads share the vector units that decoding saturates, so siblings count once.
    """
    return processors().cores


def others_seconds() -> float | None:
    """Return the processor time, in seconds, that everything but this process has taken so far.

    Of the whole machine, whatever container this is in: whoever computes on a core takes it from
    us. None where the system does not tell (it is not Linux).
    """
    try:
        _, *ticks = _CPU_TIMES.read_text().partition("\n")[0].split()
        user, nice, system, _idle, _waiting, *rest = map(int, ticks)
    except (OSError, ValueError):
        return None
    busy = user + nice + system + sum(rest[:3])  # interrupts, and what the host took
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()


def _usable_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _siblings(cpu: int) -> str:
    """Return a text that is the same for the hyper-threads of one core."""
    path = _TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> float | None:
    """Return the container's CPU limit in cores (cgroup v2: microseconds, period)."""
    try:
        limit, period = _CGROUP_QUOTA.read_text().split()
        return int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
