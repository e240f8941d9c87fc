"""The models parlm knows by name: the entries of `catalog.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_FILE = Path(__file__).with_name("catalog.toml")
BILLION = 10**9


class CatalogEntry(BaseModel):
    """One known model. `catalog.toml` says what each field means.

    `repo` and `gguf` are repositories on Hugging Face, `url` is the address of a single file
    with its `md5` and `size` in bytes. `unverified` names fields nobody compared with the
    weights; they inform, and decide nothing that the files can tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    licence: str
    architecture: str
    billions: float = Field(ge=0)
    context_length: int = Field(ge=0)
    repo: str | None = None
    revision: str = "main"
    gguf: str | None = None
    gguf_architecture: str | None = None
    url: str | None = None
    md5: str | None = None
    size: int | None = None
    quant: str | None = None
    gated: bool = False
    pickle: bool = False
    adapter: str | None = None
    aliases: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ("billions", "context_length")

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return round(self.billions * BILLION)

    @property
    def names(self) -> tuple[str, ...]:
        """Everything the model may be called: its name, its aliases, its repositories."""
        listed = (self.name, *self.aliases, self.repo, self.gguf)
        return tuple(name for name in listed if name)


class Catalog:
    """Finds an entry by any of its names; upper and lower case do not matter."""

    def __init__(self, entries: Mapping[str, CatalogEntry]) -> None:
        self.entries = entries
        self._by_name = {name.lower(): e for e in entries.values() for name in e.names}

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self.entries.values())

    def find(self, name: str) -> CatalogEntry | None:
        """Return the entry called `name`, or None."""
        return self._by_name.get(name.lower())


@cache
def catalog() -> Catalog:
    """Return the catalogue that comes with parlm."""
    tables = tomllib.loads(_FILE.read_text(encoding="utf-8"))["models"]
    return Catalog({name: CatalogEntry(name=name, **table) for name, table in tables.items()})
