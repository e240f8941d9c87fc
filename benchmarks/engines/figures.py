"""From waves to figures, and from the figures of several rounds to a median and its spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

from benchmarks.engines.load import Stream
from benchmarks.engines.measure import Measured


@dataclass(frozen=True, slots=True)
class Figures:
    """What one round of one workload showed of one peer.

    `tokens_per_second` is of all streams together, from the first request to the last answer's
    end. `ttft_mean` and `ttft_p99` (seconds) are from sending a request to its first text.
    `worst_gap` (seconds) is the longest silence of any stream after its first text.
    `ms_per_token` is the mean time between tokens of a stream after its first. `cpu_ms_per_token`
    is the CPU time of the peer's processes by generated token, prompts included. `cached_tokens`
    is how much of a prompt, in the mean, the peer says it had computed before.
    """

    tokens_per_second: float
    ttft_mean: float
    ttft_p99: float
    worst_gap: float
    ms_per_token: float
    cpu_ms_per_token: float | None
    client_ms_per_token: float
    cached_tokens: float | None
    others: float | None
    load: float


def figures(waves: Sequence[Measured]) -> Figures:
    """Return the figures of a round's waves, at least one, taken together."""
    streams = [stream for measured in waves for stream in measured.wave.streams]
    tokens = sum(stream.tokens for stream in streams)
    first = [stream.stamps[0] for stream in streams]
    cpu = _sum_known(measured.cpu_seconds for measured in waves)
    return Figures(
        tokens_per_second=tokens / sum(measured.wave.seconds for measured in waves),
        ttft_mean=statistics.fmean(first),
        ttft_p99=percentile(first, 99),
        worst_gap=max(map(worst_gap, streams)),
        ms_per_token=statistics.fmean(map(ms_per_token, streams)),
        cpu_ms_per_token=None if cpu is None else cpu / tokens * 1e3,
        client_ms_per_token=sum(measured.client_seconds for measured in waves) / tokens * 1e3,
        cached_tokens=_mean_known(stream.cached_tokens for stream in streams),
        others=_mean_known(measured.others for measured in waves),
        load=statistics.fmean(measured.load for measured in waves),
    )


def worst_gap(stream: Stream) -> float:
    """Return the longest time between two chunks in a row, in seconds; 0 for one chunk."""
    return max((later - earlier for earlier, later in pairwise(stream.stamps)), default=0.0)


def ms_per_token(stream: Stream) -> float:
    """Return the mean time a token took after the first, in milliseconds."""
    return (stream.stamps[-1] - stream.stamps[0]) / max(stream.tokens - 1, 1) * 1e3


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


def _sum_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, and the least and the greatest of them."""

    median: float
    least: float
    greatest: float


def spreads(rounds: Sequence[Figures]) -> dict[str, Spread | None]:
    """Return, for each field of `Figures`, its spread over the rounds; None where unknown."""
    return {
        field.name: _spread([getattr(round_, field.name) for round_ in rounds])
        for field in fields(Figures)
    }


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return Spread(statistics.median(known), min(known), max(known)) if known else None
