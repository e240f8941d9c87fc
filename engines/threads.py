"""How many threads a model that runs on the processor should use when nobody said."""

from __future__ import annotations

import math
import os
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def default_threads() -> int:
    """Return the number of physical cores this process may use, at least 1.

    Hyper-threads share the vector units that decoding saturates, so siblings count once; a
    container's CPU quota counts too, because threads beyond it only wait for each other.
    """
    usable = _usable_cpus()
    cores = len({_siblings(cpu) for cpu in usable})
    quota = _quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


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
