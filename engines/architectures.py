"""Which engine runs which architecture: the facts of `architectures.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("architectures.toml")


@dataclass(frozen=True, slots=True)
class EngineSupport:
    """What one engine runs. `refused` maps an architecture to the reason it does not run.

    An architecture in neither is not known here; a newer library may run it. Those in
    `needs_remote_code` run only with Python code from the model's folder.
    """

    runs: frozenset[str]
    refused: Mapping[str, str]
    needs_remote_code: frozenset[str]


_ANYTHING = EngineSupport(frozenset(), {}, frozenset())


def engine_support(engine: str) -> EngineSupport:
    """Return what an engine runs; an engine without a list knows nothing and refuses nothing."""
    return _all().get(engine, _ANYTHING)


@cache
def _all() -> Mapping[str, EngineSupport]:
    tables = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {
        engine: EngineSupport(
            runs=frozenset(table["runs"]),
            refused=table.get("refused", {}),
            needs_remote_code=frozenset(table.get("needs_remote_code", ())),
        )
        for engine, table in tables.items()
    }
