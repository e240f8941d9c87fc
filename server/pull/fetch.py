"""One file from the network to the disk: resumed where it stopped, and checked.

huggingface_hub resumes a broken connection within a call, but drops what it has when the program
ends, and compares only the size of what came over HTTP. So the part is kept here, under a name
that has its checksum in it, and every file is hashed before it gets its own name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import httpx2
from huggingface_hub.file_download import http_get

from server.pull.errors import PullError
from server.pull.files import Checksum, RemoteFile

_CHUNK = 4 * 2**20


def part_path(file: RemoteFile, folder: Path) -> Path:
    """Return where a file grows: another version of it grows elsewhere."""
    return folder / f"{file.name}.{file.checksum.value[:16]}.part"


def fetch(
    file: RemoteFile, folder: Path, headers: Mapping[str, str], report: Callable[[int], None]
) -> None:
    """Download a file into a folder unless it is there already, and check it.

    `report` is called with the bytes of the file that are there. Raises `PullError` for a wrong
    checksum, and what huggingface_hub and the system raise.
    """
    path, part = folder / file.name, part_path(file, folder)
    if path.is_file() and path.stat().st_size == file.size and matches(path, file.checksum):
        report(file.size)
        return
    if part.exists() and part.stat().st_size > file.size:
        part.unlink()
    while not _transfer(file, part, headers if file.needs_token else {}, report):
        pass
    if not matches(part, file.checksum):
        part.unlink()
        raise PullError(
            f"{file.path} arrived with another {file.checksum.algorithm} than "
            f"{file.checksum.value}: what came was deleted; run this again"
        )
    part.replace(path)


def _transfer(
    file: RemoteFile, part: Path, headers: Mapping[str, str], report: Callable[[int], None]
) -> bool:
    """Get the rest of a file; False when the connection was reset after some of it had come.

    `http_get` takes up other breaks by itself. It writes in steps of 10 MiB, so that is what one
    break may lose.
    """
    with part.open("ab") as opened:
        start = opened.tell()
        report(start)
        try:
            http_get(
                file.url,
                opened,
                resume_size=start,
                headers=dict(headers),
                expected_size=file.size,
                tqdm_class=cast(Any, _reporting(report)),
            )
        except httpx2.ReadError:
            if opened.tell() == start:
                raise
            return False
        opened.flush()
        os.fsync(opened.fileno())
    return True


def matches(path: Path, checksum: Checksum) -> bool:
    """Hash a file and compare."""
    algorithm = checksum.algorithm.removeprefix("git-")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    if checksum.algorithm == "git-sha1":
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == checksum.value


def _reporting(report: Callable[[int], None]) -> type:
    """Make a class with what `http_get` uses of a progress bar of tqdm."""

    class Reporting:
        def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
            self._done = initial

        def __enter__(self) -> Reporting:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: int) -> None:
            self._done += n
            report(self._done)

    return Reporting
