"""Writes what was measured: a Markdown table for people, JSON with every round for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import msgspec

from benchmarks.engines.figures import Figures, Spread, spreads


@dataclass(frozen=True, slots=True)
class Row:
    """The rounds of one peer in one workload. `part` is of which half of it, often empty."""

    model: str
    workload: str
    part: str
    streams: int
    peer: str
    rounds: list[Figures] = field(default_factory=list)

    @property
    def case(self) -> tuple[str, str, str, int]:
        """What rows have in common that can be compared."""
        return (self.model, self.workload, self.part, self.streams)


@dataclass(frozen=True, slots=True)
class Results:
    """A whole run: what it ran on and with, what went wrong, and the rows in order."""

    about: dict[str, str]
    notes: list[str]
    rows: list[Row]


COLUMNS = (
    "prompts",
    "streams",
    "server",
    "tokens/s",
    "against the first",
    "TTFT mean, ms",
    "TTFT p99, ms",
    "worst gap, ms",
    "ms/token",
    "CPU ms/token",
    "cached",
    "others' cores",
    "load",
)


def to_json(results: Results) -> bytes:
    """Return the results as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(results), indent=1)


def to_markdown(results: Results) -> str:
    """Return the results as a Markdown page."""
    parts = [f"- {name}: {value}" for name, value in results.about.items()]
    for model, rows in groupby(results.rows, lambda row: row.model):
        parts += ["", f"## {model}", "", *_table(list(rows))]
    if results.notes:
        parts += ["", "## Notes", "", *(f"- {note}" for note in results.notes)]
    return "\n".join(parts) + "\n"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield _line(COLUMNS)
    yield _line(["---"] * len(COLUMNS))
    for _, group in groupby(rows, lambda row: row.case):
        compared = [row for row in group if row.rounds]
        first = None
        for row in compared:
            speed = statistics.median(figures.tokens_per_second for figures in row.rounds)
            first = first or speed
            yield _line(_cells(row, speed / first))


def _cells(row: Row, ratio: float) -> Iterator[str]:
    spread = spreads(row.rounds)
    yield f"{row.workload} {row.part}".strip()
    yield str(row.streams)
    yield row.peer
    yield show(spread["tokens_per_second"])
    yield f"{ratio:.2f}"
    for name in ("ttft_mean", "ttft_p99", "worst_gap"):
        yield show(spread[name], 1e3)
    yield show(spread["ms_per_token"])
    yield show(spread["cpu_ms_per_token"])
    for name in ("cached_tokens", "others", "load"):
        value = spread[name]
        yield "" if value is None else digits(value.median)


def show(spread: Spread | None, factor: float = 1.0) -> str:
    """Return `median [least-greatest]`, each multiplied by `factor`; empty if unknown."""
    if spread is None:
        return ""
    median, least, greatest = (
        digits(value * factor) for value in (spread.median, spread.least, spread.greatest)
    )
    return f"{median} [{least}-{greatest}]"


def digits(value: float) -> str:
    """Return a number with three digits, more before the point if it has them."""
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{places}f}"


def _line(cells: Iterator[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
