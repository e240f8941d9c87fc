"""`parlm models --catalog`: the models parlm knows by name, and what runs on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from engines.registry import ENGINES
from server.catalog import CatalogEntry, catalog
from server.cli import terminal
from server.machine import Machine, look_at_machine
from server.memory import in_gb
from server.outlook import Outlook, outlook
from server.settings import Settings

Row = tuple[CatalogEntry, Outlook]


def show_catalog(settings: Settings, *, as_json: bool) -> None:
    """Print the catalogue as a table, or as JSON with every field."""
    machine = look_at_machine(settings)
    rows = [(entry, outlook(entry, machine, ENGINES)) for entry in catalog()]
    if as_json:
        answer = {"machine": _machine(machine), "models": [_model(*row) for row in rows]}
        typer.echo(json.dumps(answer, ensure_ascii=False))
        return
    width = None if terminal.is_terminal() else 1000
    Console(width=width, markup=False).print(_table(rows))
    terminal.warn(_about(machine))


def _table(rows: Sequence[Row]) -> Table:
    table = Table("model", "billions", "context", "runs here with", "needs", "licence")
    table.box, table.pad_edge = SIMPLE_HEAD, False
    for entry, found in rows:
        table.add_row(
            entry.name,
            f"{entry.billions:g}" if entry.billions else "",
            str(entry.context_length or ""),
            _how(found),
            in_gb(found.build.running_bytes) if found.build else "",
            f"{entry.licence}, gated" if entry.gated else entry.licence,
        )
    return table


def _how(found: Outlook) -> str:
    if found.engine is None:
        return f"no: {found.reason}"
    build = f" ({found.build.format} {found.build.quant})" if found.build else ""
    missing = f"; but {found.to_install}" if found.to_install else ""
    return f"{found.engine}{build}{missing}"


def _about(machine: Machine) -> str:
    devices = ", ".join(f"{g.name} with {in_gb(g.memory_bytes)}" for g in machine.gpus)
    memory = "unknown" if machine.memory_bytes is None else in_gb(machine.memory_bytes)
    return (
        f"This machine: {devices or 'no CUDA device'}{', Metal' if machine.has_metal else ''}; "
        f"memory {memory}. Needs are estimates with a short context. `parlm pull MODEL` downloads"
    )


def _machine(machine: Machine) -> dict[str, object]:
    return {
        "platform": machine.platform,
        "memory_bytes": machine.memory_bytes,
        "gpus": [{"name": g.name, "memory_bytes": g.memory_bytes} for g in machine.gpus],
        "engines": sorted(machine.installed & ENGINES.keys()),
    }


def _model(entry: CatalogEntry, found: Outlook) -> dict[str, object]:
    build = found.build
    here = {
        "engine": found.engine,
        "format": build.format if build else None,
        "quant": build.quant if build else None,
        "needs_bytes": build.running_bytes if build else None,
        "reason": found.reason,
        "to_install": found.to_install,
    }
    return {**entry.model_dump(), "parameters": entry.parameters, "here": here}
