"""How many threads: the contest with times that the test makes up, and on a real model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from engines.llama_cpp import thread_choice
from engines.llama_cpp.config import LlamaCppOptions
from engines.llama_cpp.loading import load
from engines.llama_cpp.thread_cache import ThreadCache, Threads
from engines.llama_cpp.thread_choice import BUDGET_SECONDS, choose_threads, run_contest
from engines.threads import Processors

MACHINE = Processors(cores=4, cpus=8, name="Abacus 3000")


class Machine:
    """A clock that steps advance, by seconds that depend on the number of threads."""

    def __init__(self, seconds: Callable[[int, int], float]) -> None:
        self.now = 0.0
        self.steps: list[tuple[int, int]] = []
        self._seconds = seconds

    def step(self, n_tokens: int, n_threads: int) -> None:
        self.steps.append((n_tokens, n_threads))
        self.now += self._seconds(n_tokens, n_threads)

    def single(self, n_threads: int) -> None:
        self.step(1, n_threads)

    def clock(self) -> float:
        return self.now


def winner(seconds: dict[int, float]) -> int:
    machine = Machine(lambda _, n: seconds[n])
    contest = run_contest(sorted(seconds, reverse=True), machine.single, machine.clock)
    assert contest is not None
    return contest.winner


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({8: 0.003, 4: 0.002, 2: 0.004, 1: 0.008}, 4),
        ({8: 0.0020, 4: 0.0020, 2: 0.00208, 1: 0.004}, 2),
        ({8: 0.004, 4: 0.003, 2: 0.0025, 1: 0.002}, 1),
        ({8: 0.001, 4: 0.002, 2: 0.004, 1: 0.008}, 8),
    ],
)
def test_the_fewest_threads_that_are_nearly_best(seconds: dict[int, float], expected: int) -> None:
    assert winner(seconds) == expected


def test_one_quiet_moment_for_each_is_enough() -> None:
    calls = 0

    def seconds(_: int, n_threads: int) -> float:
        nonlocal calls
        calls += 1
        return (0.004 / n_threads) * (8 if calls % 5 else 1)

    machine = Machine(seconds)
    contest = run_contest((2, 1), machine.single, machine.clock)
    assert contest is not None
    assert contest.winner == 2


def test_fewer_threads_than_slow_ones_are_not_tried() -> None:
    seconds = {8: 0.01, 4: 0.015, 2: 0.04, 1: 0.08}
    machine = Machine(lambda _, n: seconds[n])
    run_contest((8, 4, 2, 1), machine.single, machine.clock)
    assert {n for _, n in machine.steps} == {8, 4, 2}
    assert [n for _, n in machine.steps].count(2) == 1


def test_a_slow_model_is_not_measured_for_long() -> None:
    machine = Machine(lambda _, n: 2.4 / n)
    assert run_contest((2, 1), machine.single, machine.clock) is None
    assert machine.now < 2 * BUDGET_SECONDS


def test_without_a_round_there_is_a_thread_a_core() -> None:
    machine = Machine(lambda *_: 1.2)
    choice = choose_threads(MACHINE, machine.step, None, machine.clock)
    assert choice.threads == Threads(4, 4)
    assert "too long" in choice.reason


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else runs."""
    monkeypatch.setattr(thread_choice, "others_seconds", lambda: 0.0)


def test_one_token_and_several_may_want_different_threads(quiet: None, tmp_path: Path) -> None:
    def seconds(n_tokens: int, n_threads: int) -> float:
        return 0.002 if n_tokens == 1 else 0.016 / n_threads

    machine = Machine(seconds)
    cache = ThreadCache(tmp_path, "here")
    choice = choose_threads(MACHINE, machine.step, cache, machine.clock)
    assert choice.threads == Threads(1, 8)
    assert choice.reason.startswith("1 and, for several tokens, 8 threads (1 token: 2 ms with 1")
    assert choose_threads(MACHINE, machine.step, cache, machine.clock).threads == Threads(1, 8)
    n_steps = len(machine.steps)
    again = choose_threads(MACHINE, machine.step, cache, machine.clock)
    assert "earlier start" in again.reason
    assert len(machine.steps) == n_steps


def test_what_a_busy_machine_gave_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    times = iter([0.0, 1000.0])
    monkeypatch.setattr(thread_choice, "others_seconds", lambda: next(times))
    machine = Machine(lambda _, n: 0.004 / n)
    choice = choose_threads(MACHINE, machine.step, ThreadCache(tmp_path, "x"), machine.clock)
    assert choice.threads == Threads(8, 8)
    assert "busy" in choice.reason
    assert not list(tmp_path.iterdir())


def test_one_processor_leaves_no_choice() -> None:
    machine = Machine(lambda *_: 1.0)
    choice = choose_threads(Processors(1, 1, "x"), machine.step, None, machine.clock)
    assert choice.threads == Threads(1, 1)
    assert machine.steps == []


def note(path: Path, **options: object) -> str:
    """Load a model as at a start; return what it says of its threads."""
    model, context, _ = load(LlamaCppOptions(str(path), n_slots=1, **options))  # type: ignore[arg-type]
    held = context.held(0)
    context.close()
    model.close()
    assert held == 0
    return context.note


def test_a_real_model_is_measured_once(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: None
) -> None:
    monkeypatch.setattr(thread_choice, "processors", lambda: Processors(2, 2, "x"))
    assert "ms with 2" in note(tiny_gguf, cache_dir=str(tmp_path / "new" / "folder"))
    assert "earlier start" in note(tiny_gguf, cache_dir=str(tmp_path / "new" / "folder"))
    assert "ms with 2" in note(tiny_gguf)
    assert note(tiny_gguf, n_threads=1) == "1 thread, as set"
