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


def test_counts_worth_trying_are_the_most_first(machine: Path) -> None:
    assert threads.processors().thread_counts == (4, 2, 1)
    assert threads.Processors(64, 128, "x").thread_counts == (128, 64, 32, 2, 1)
    assert threads.Processors(1, 1, "x").thread_counts == (1,)


def test_a_quota_bounds_the_logical_processors_too(machine: Path) -> None:
    (machine / "cpu.max").write_text("250000 100000\n")
    assert (threads.processors().cores, threads.processors().cpus) == (2, 3)


def test_the_processors_name(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = machine / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Abacus 3000\n\nmodel name\t: Abacus 3000\n")
    monkeypatch.setattr(threads, "_CPU_INFO", info)
    assert threads.processors().name == "Abacus 3000"
    monkeypatch.setattr(threads, "_CPU_INFO", machine / "none")
    assert threads.processors().name


def test_time_of_others(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = machine / "stat"
    second = os.sysconf("SC_CLK_TCK")
    stat.write_text(f"cpu  {5 * second} 0 {2 * second} 90 90 {second} 0 {second} 0 0\ncpu0 1\n")
    monkeypatch.setattr(threads, "_CPU_TIMES", stat)
    monkeypatch.setattr("time.process_time", lambda: 2.0)
    assert threads.others_seconds() == pytest.approx(7.0)
    stat.write_text("strange")
    assert threads.others_seconds() is None
