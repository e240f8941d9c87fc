from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field

import pytest

from engines.watchdog import Watchdog, WatchLimits, processor_seconds


@dataclass
class Bench:
    """A watchdog over an imagined child; `watch` plays seconds and returns the verdict."""

    cpu_share: float | None = 0.0
    now: float = 0.0
    used: float = 0.0
    frames: int = 1
    dog: Watchdog = field(init=False)

    def __post_init__(self) -> None:
        limits = WatchLimits(stall_timeout=15, step_timeout=300)
        self.dog = Watchdog(limits, self.read_used, lambda: self.now)

    def read_used(self) -> float | None:
        return None if self.cpu_share is None else self.used

    def watch(self, seconds: float, is_owing: bool = True, is_talking: bool = False) -> str | None:
        end = self.now + seconds
        while self.now < end:
            self.now += self.dog.interval
            self.used += self.dog.interval * (self.cpu_share or 0)
            self.frames += is_talking
            if (verdict := self.dog.look(self.frames, is_owing)) is not None:
                return verdict
        return None


def test_a_child_that_talks_or_owes_nothing_is_fine() -> None:
    bench = Bench()
    assert bench.watch(1000, is_talking=True) is None
    assert bench.watch(1000, is_owing=False) is None


def test_a_child_that_waits_is_stalled_within_the_timeout() -> None:
    bench = Bench(now=100)
    bench.watch(50, is_talking=True)
    since = bench.now
    assert "no progress for 15 s" in str(bench.watch(100))
    assert 13 < bench.now - since <= 15


def test_a_child_that_computes_has_longer() -> None:
    bench = Bench(cpu_share=0.5)
    assert bench.watch(280) is None
    assert "longer than 300 s" in str(bench.watch(100))


def test_a_child_whose_processor_time_is_unknown_has_as_long() -> None:
    bench = Bench(cpu_share=None)
    assert bench.watch(280) is None
    assert bench.watch(100) is not None


def test_one_message_starts_the_count_anew() -> None:
    bench = Bench()
    for _ in range(5):
        assert bench.watch(12) is None
        bench.frames += 1


def test_a_late_look_counts_little() -> None:
    bench = Bench()
    bench.watch(3)
    bench.now += 1000
    assert bench.dog.look(bench.frames, is_owing=True) is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux")
def test_reads_the_processor_time_of_a_process() -> None:
    before = processor_seconds(os.getpid())
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    after = processor_seconds(os.getpid())
    assert before is not None and after is not None
    assert 0.05 < after - before < 1
    assert processor_seconds(2**22 + 1) is None
