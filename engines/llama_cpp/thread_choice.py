"""How many threads: a short measurement on the loaded model, kept for the next start.

llama.cpp takes one count for steps of a single token and one for steps of several. For either the
fewest threads are chosen that are nearly as fast as the best: those beyond it only wait for memory,
and take time from everything else on the machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

from engines.llama_cpp.binding import Context, Model
from engines.llama_cpp.config import LlamaCppOptions
from engines.llama_cpp.thread_cache import ThreadCache, Threads
from engines.threads import Processors, others_seconds, processors

Clock = Callable[[], float]

BUDGET_SECONDS = 1.0
"""For each of the two counts. The last step may end later; the first, which may read the weights
from the disk, is not counted."""

MAX_ROUNDS = 9
MAX_BATCH = 16
# Steps of a turn, since the first after a change of threads has to wake them; fewer when long.
_TURN_STEPS, _TURN_SECONDS = 3, 0.03
# As good as the best.
_NEARLY = 1.05
# So slow that neither a second try is worth it, nor one with fewer threads.
_HOPELESS = 2.0
# Processors that others may use meanwhile, for the outcome to be kept.
_OTHERS = 0.3


@dataclass(frozen=True, slots=True)
class ThreadChoice:
    """The threads chosen, and why, as words for the log."""

    threads: Threads
    reason: str


@dataclass(slots=True)
class Contest:
    """The seconds that a step took with each count of threads, the least of each turn."""

    seconds: dict[int, list[float]] = field(default_factory=dict)

    def best(self, count: int) -> float:
        """The least of a count's times, which anything else on the machine can only add to."""
        return min(self.seconds[count])

    @property
    def fastest(self) -> float:
        """The least of all times."""
        return min(map(self.best, self.seconds))

    @property
    def winner(self) -> int:
        """The fewest threads that are nearly as fast as the best."""
        return min(n for n in self.seconds if self.best(n) <= self.fastest * _NEARLY)

    def __str__(self) -> str:
        times = (f"{1000 * self.best(n):.3g} ms with {n}" for n in sorted(self.seconds))
        return ", ".join(times)


def run_contest(
    counts: Sequence[int], step: Callable[[int], None], clock: Clock = time.perf_counter
) -> Contest | None:
    """Time `step` with each count (the most first) in turn, until the time is over.

    One count after another, so that a busy moment hits all of them. Fewer threads than ones that
    were clearly slower are not tried. None when not even one round fits.
    """
    contest, deadline = Contest(), clock() + BUDGET_SECONDS
    for number in range(MAX_ROUNDS):
        for count in counts:
            if contest.seconds and clock() >= deadline:
                return contest if number else None
            if number and contest.best(count) > _HOPELESS * contest.fastest:
                continue
            contest.seconds.setdefault(count, []).append(_turn(count, step, clock))
            if contest.best(count) > _HOPELESS * contest.fastest:
                counts = counts[: counts.index(count) + 1]
                break
    return contest


def _turn(count: int, step: Callable[[int], None], clock: Clock) -> float:
    """Return the seconds of the shortest of a few steps."""
    started = before = clock()
    shortest = math.inf
    for _ in range(_TURN_STEPS):
        step(count)
        now = clock()
        shortest = min(shortest, now - before)
        before = now
        if now - started > _TURN_SECONDS:
            break
    return shortest


def choose_threads(
    machine: Processors,
    step: Callable[[int, int], None],
    cache: ThreadCache | None,
    clock: Clock = time.perf_counter,
) -> ThreadChoice:
    """Choose by measurement, or take what an earlier one found.

    `step(n_tokens, n_threads)` runs a step of the model. Without a measurement there is one
    thread a physical core. What was measured on a busy machine is used, and not kept.
    """
    if len(machine.thread_counts) == 1:
        return ThreadChoice(Threads(1, 1), "1 thread, as there is one processor")
    if cache is not None and (kept := cache.read(machine.cpus)) is not None:
        return ThreadChoice(kept, f"{kept} (measured at an earlier start)")
    step(1, machine.cores)  # reads the weights
    watch = _Watch()
    measured = _measure(machine.thread_counts, step, clock)
    if measured is None:
        default = Threads(machine.cores, machine.cores)
        return ThreadChoice(default, f"{default} (a step takes too long to measure)")
    if watch.others > _OTHERS:
        return replace(measured, reason=f"{measured.reason}, on a busy machine: not kept")
    if cache is not None:
        cache.write(measured.threads)
    return measured


def _measure(
    counts: Sequence[int], step: Callable[[int, int], None], clock: Clock
) -> ThreadChoice | None:
    single = run_contest(counts, lambda n: step(1, n), clock)
    if single is None:
        return None
    n_tokens = min(MAX_BATCH, int(BUDGET_SECONDS / (4 * single.fastest * len(counts))))
    batch = run_contest(counts, lambda n: step(n_tokens, n), clock) if n_tokens > 1 else None
    threads = Threads(single.winner, (batch or single).winner)
    reason = f"{threads} (1 token: {single}"
    reason += f"; {n_tokens} tokens: {batch})" if batch is not None else ")"
    return ThreadChoice(threads, reason)


class _Watch:
    """Sees how many processors other programs use from its making on."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before = others_seconds()

    @property
    def others(self) -> float:
        """Processors in use on average; 0 where that cannot be seen."""
        now = others_seconds()
        if now is None or self._before is None:
            return 0.0
        return (now - self._before) / max(time.perf_counter() - self._started, 1e-3)


def tune(model: Model, context: Context, options: LlamaCppOptions) -> str:
    """Set the threads of a context that has not been used; return the choice as words."""
    if options.n_threads is not None:
        return f"{Threads(options.n_threads, options.n_threads)}, as set"
    machine = processors()
    if model.is_offloaded:
        return f"{Threads(machine.cores, machine.cores)} beside the GPU"

    def step(n_tokens: int, n_threads: int) -> None:
        context.set_threads(n_threads, n_threads)
        context.try_step(n_tokens)

    choice = choose_threads(machine, step, _cache(model, options, machine))
    context.set_threads(choice.threads.single, choice.threads.batch)
    return choice.reason


def _cache(model: Model, options: LlamaCppOptions, machine: Processors) -> ThreadCache | None:
    """Return where the choice for a model on this machine is kept; None without a folder."""
    if options.cache_dir is None:
        return None
    about = (
        f"{machine.name}, {machine.cores} cores, {machine.cpus} CPUs; llama-cpp-python "
        f"{metadata.version('llama-cpp-python')}; {model.description}, {model.size_bytes} bytes"
    )
    return ThreadCache(Path(options.cache_dir).expanduser(), about)
