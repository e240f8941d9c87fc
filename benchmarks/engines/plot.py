"""Draws tokens per second and CPU time per token, by streams, for each model and peer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.engines.figures import spreads
from benchmarks.engines.report import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (("tokens_per_second", "tokens/s"), ("cpu_ms_per_token", "CPU ms/token"))


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write a picture of the rows. Raises `ModuleNotFoundError` without matplotlib."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys((row.model, f"{row.workload} {row.part}".strip()) for row in rows))
    figure = Figure(figsize=(11, 3.2 * len(cases)), layout="constrained")
    axes = figure.subplots(len(cases), len(PANELS), squeeze=False)
    for (model, workload), line in zip(cases, axes, strict=True):
        shown = [
            row
            for row in rows
            if (row.model, f"{row.workload} {row.part}".strip()) == (model, workload)
        ]
        for (name, label), axis in zip(PANELS, line, strict=True):
            _bars(axis, shown, name)
            axis.set_ylabel(label)
            axis.set_title(f"{model}: {workload}", fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)))
    figure.savefig(path, dpi=110)


def _bars(axis: Axes, rows: Sequence[Row], name: str) -> None:
    """Draw a group of bars for each number of streams, with whiskers from least to greatest."""
    streams = sorted({row.streams for row in rows})
    peers = list(dict.fromkeys(row.peer for row in rows))
    width = 0.8 / len(peers)
    for row in rows:
        spread = spreads(row.rounds)[name] if row.rounds else None
        if spread is None:
            continue
        number = peers.index(row.peer)
        first = not any(r.peer == row.peer for r in rows[: rows.index(row)])
        axis.bar(
            streams.index(row.streams) + (number + 0.5) * width - 0.4,
            spread.median,
            width,
            color=f"C{number}",
            label=row.peer if first else None,
            yerr=[[spread.median - spread.least], [spread.greatest - spread.median]],
            capsize=2,
        )
    axis.set_xticks(range(len(streams)), [str(number) for number in streams])
    axis.set_xlabel("streams")
