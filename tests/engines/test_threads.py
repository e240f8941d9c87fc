from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines import threads


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four CPUs on two cores, no quota."""
    monkeypatch.setattr(threads, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(threads, "_CGROUP_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for cpu in range(4):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    return tmp_path


def test_hyper_threads_count_once(machine: Path) -> None:
    assert threads.default_threads() == 2


def test_a_quota_bounds_the_threads(machine: Path) -> None:
    (machine / "cpu.max").write_text("50000 100000\n")
    assert threads.default_threads() == 1


@pytest.mark.parametrize("quota", ["max 100000\n", "nonsense"])
def test_no_quota_bounds_nothing(machine: Path, quota: str) -> None:
    (machine / "cpu.max").write_text(quota)
    assert threads.default_threads() == 2


def test_without_topology_each_cpu_is_a_core(
    machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(threads, "_TOPOLOGY", tmp_path / "none")
    assert threads.default_threads() == 4


def test_without_affinity_all_cpus_are_usable(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.default_threads() == 1
