"""Keeps the measured number of threads from one start to the next.

One small JSON file for each machine, model and version of the library. A file that is missing,
damaged or not to be written only means that the measurement is made again.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec

logger = logging.getLogger(__name__)


class Threads(msgspec.Struct, frozen=True):
    """Threads for steps of one token, and for those of several."""

    single: int
    batch: int

    def __str__(self) -> str:
        if self.single == self.batch:
            return "1 thread" if self.single == 1 else f"{self.single} threads"
        return f"{self.single} and, for several tokens, {self.batch} threads"


class _Entry(msgspec.Struct, frozen=True):
    about: str
    threads: Threads


class ThreadCache:
    """The entry of one machine and model, which `about` names, in a folder."""

    def __init__(self, folder: Path, about: str) -> None:
        self._about = about
        name = hashlib.blake2b(about.encode(), digest_size=8).hexdigest()
        self._file = folder / f"llama-cpp-threads-{name}.json"

    def read(self, limit: int) -> Threads | None:
        """Return what was kept; None if there is nothing of use. At most `limit` can be meant."""
        try:
            entry = msgspec.json.decode(self._file.read_bytes(), type=_Entry)
        except (OSError, msgspec.DecodeError):
            return None
        counts = (entry.threads.single, entry.threads.batch)
        if entry.about != self._about or not all(1 <= count <= limit for count in counts):
            return None
        return entry.threads

    def write(self, threads: Threads) -> None:
        """Keep a choice, as far as the folder lets itself be written to."""
        data = msgspec.json.encode(_Entry(self._about, threads))
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self._file.parent, delete=False) as file:
                file.write(data)
            Path(file.name).replace(self._file)
        except OSError as error:
            logger.info("the number of threads is not kept: %s", error)
