"""From a model's name to the files that make it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from server.catalog import CatalogEntry
from server.pull.errors import PullError
from server.pull.files import (
    Checksum,
    ModelFormat,
    RemoteFile,
    has_gguf,
    has_safetensors,
    select_gguf,
    select_safetensors,
)
from server.pull.hub import Hub, Listing
from server.pull.store import Source

_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for. None leaves a choice open; `prefers_gguf` then decides it.

    `may_have_code` allows Python files of the model's own.
    """

    name: str
    format: ModelFormat | None = None
    quant: str | None = None
    revision: str | None = None
    prefers_gguf: bool = True
    may_have_code: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be downloaded: under which name, from where, which files."""

    name: str
    source: Source
    files: Sequence[RemoteFile]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def make_plan(wish: Wish, entry: CatalogEntry | None, hub: Hub) -> Plan:
    """Find the files. Raises `PullError` for what is not there or may not be taken."""
    if entry is None:
        return _of_repository(wish, hub)
    if entry.url is not None:
        return _of_address(wish, entry)
    if entry.repo is None and entry.gguf is None:
        raise PullError(f"{entry.name} has no weights to download: it stands for a service")
    format = _format(wish, entry)
    if format == "gguf":
        return _gguf(wish, entry.name, hub.list(_gguf_repo(entry), wish.revision or "main"))
    if entry.repo is None:
        raise PullError(f"{entry.name} is known as GGUF only: leave --format away")
    listing = hub.list(entry.repo, wish.revision or entry.revision)
    is_free = wish.format is None and wish.revision is None
    if is_free and entry.gguf and not entry.pickle and not has_safetensors(listing.files):
        # Its authors published pickle only; the GGUF files are the same model.
        return _gguf(wish, entry.name, hub.list(entry.gguf, "main"))
    return _safetensors(wish, entry.name, listing, entry)


def _format(wish: Wish, entry: CatalogEntry) -> ModelFormat:
    if wish.format is not None:
        return wish.format
    if wish.quant is not None:
        return "gguf"
    return "gguf" if entry.gguf and (wish.prefers_gguf or not entry.repo) else "safetensors"


def _gguf_repo(entry: CatalogEntry) -> str:
    if entry.gguf is None:
        raise PullError(
            f"no GGUF files of {entry.name} are known: leave --quant and --format away for its "
            "safetensors"
        )
    return entry.gguf


def _of_repository(wish: Wish, hub: Hub) -> Plan:
    """A model the catalogue does not know, by the name of its repository."""
    if not _REPO.fullmatch(wish.name) or ".." in wish.name:
        raise PullError(
            f"{wish.name!r} is in no catalogue (`parlm models --catalog` lists it) and is not the "
            "name of a repository, such as Qwen/Qwen3-8B"
        )
    listing = hub.list(wish.name, wish.revision or "main")
    is_gguf = has_gguf(listing.files) and (wish.prefers_gguf or not has_safetensors(listing.files))
    if wish.format == "gguf" or wish.quant is not None or (wish.format is None and is_gguf):
        return _gguf(wish, wish.name, listing)
    return _safetensors(wish, wish.name, listing, None)


def _of_address(wish: Wish, entry: CatalogEntry) -> Plan:
    if wish.format is not None or wish.quant is not None or wish.revision is not None:
        raise PullError(f"{entry.name} is one file: leave --format, --quant and --revision away")
    url, md5 = entry.url or "", entry.md5 or ""
    path = url.rpartition("/")[2]
    file = RemoteFile(path, url, entry.size or 0, Checksum("md5", md5), needs_token=False)
    return Plan(entry.name, Source(url, "", "ggml", entry.quant), [file])


def _gguf(wish: Wish, name: str, listing: Listing) -> Plan:
    quant, files = select_gguf(listing.files, wish.quant, listing.repo)
    return Plan(name, Source(listing.repo, listing.commit, "gguf", quant), files)


def _safetensors(wish: Wish, name: str, listing: Listing, entry: CatalogEntry | None) -> Plan:
    try:
        files = select_safetensors(
            listing.files,
            listing.repo,
            may_be_pickle=entry is not None and entry.pickle,
            may_have_code=wish.may_have_code,
        )
    except PullError as error:
        if entry is None or entry.gguf is None:
            raise
        raise PullError(f"{error}. Take its GGUF: --quant Q4_K_M") from error
    return Plan(name, Source(listing.repo, listing.commit, "safetensors"), files)
