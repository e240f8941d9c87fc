"""Runs waves against a peer and keeps, beside the answers, what else the machine did meanwhile."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil

from benchmarks.engines.load import Wave
from benchmarks.engines.peers import Peer


@dataclass(frozen=True, slots=True)
class Measured:
    """A wave and its cost.

    `cpu_seconds` are those of the peer's processes, None where they cannot be seen;
    `client_seconds` are the client's own. `others` is how many cores everything else kept busy.
    `load` is the load average of the last minute, our own work included.
    """

    wave: Wave
    cpu_seconds: float | None
    client_seconds: float
    others: float | None
    load: float


@dataclass(frozen=True, slots=True)
class _Clocks:
    wall: float
    busy: float
    client: float
    peer: float | None


async def measured_wave(peer: Peer, prompts: list[str], max_tokens: int) -> Measured:
    """Run one wave. Raises `LoadError`."""
    before = _read_clocks(peer)
    wave = await peer.wave(prompts, max_tokens)
    after = _read_clocks(peer)
    cpu: float | None = None
    others: float | None = None
    client = after.client - before.client
    if before.peer is not None and after.peer is not None:
        cpu = after.peer - before.peer
        busy = after.busy - before.busy - cpu - client
        others = max(0.0, busy / (after.wall - before.wall))
    return Measured(wave, cpu, client, others, os.getloadavg()[0])


def _read_clocks(peer: Peer) -> _Clocks:
    times = psutil.cpu_times()._asdict()
    # Linux counts the time of guests twice: it is in `user` as well.
    idle = ("idle", "iowait", "guest", "guest_nice")
    busy = sum(seconds for kind, seconds in times.items() if kind not in idle)
    return _Clocks(time.monotonic(), busy, time.process_time(), peer.cpu_seconds())
