"""Engine names to classes, held as strings so that no heavy library is imported to list them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from engines.base import Engine
from engines.errors import MissingDependency, UnknownEngine


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """Where an engine's factory lives, and the library it needs, if any."""

    target: str
    library: str | None = None
    remedy: str = ""


ENGINES: dict[str, EngineEntry] = {
    "echo": EngineEntry("engines.echo:EchoEngine"),
    "llama_cpp": EngineEntry(
        "engines.llama_cpp:create", "llama_cpp", "run `make install` or pip install '.[llama-cpp]'"
    ),
    "transformers": EngineEntry(
        "engines.transformers:create", "transformers", "run pip install '.[transformers]'"
    ),
}


def create_engine(name: str, **options: Any) -> Engine:
    """Build the engine called `name` with its options; nothing is loaded before `start`.

    Raises `UnknownEngine`, and `MissingDependency` when its library is absent.
    """
    entry = ENGINES.get(name)
    if entry is None:
        raise UnknownEngine(name, sorted(ENGINES))
    module_name, _, attribute = entry.target.partition(":")
    try:
        return cast(Engine, getattr(import_module(module_name), attribute)(**options))
    except ModuleNotFoundError as error:
        if entry.library is None or (error.name or "").partition(".")[0] != entry.library:
            raise
        raise MissingDependency(name, entry.library, entry.remedy) from error
