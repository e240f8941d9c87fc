"""The folder of models: a download grows aside and gets its place when it is whole.

models/.partial/NAME/   what has arrived so far; nothing looks for a model there
models/NAME/            the model, with `.parlm.json` about where it came from
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from server.memory import in_gb
from server.model_specs import partial_folder
from server.pull.errors import PullError
from server.pull.fetch import part_path
from server.pull.files import RemoteFile

_RECORD = ".parlm.json"


class Source(msgspec.Struct, frozen=True):
    """Where a model came from. `revision` is a commit; empty for a file at an address."""

    repo: str
    revision: str
    format: str
    quant: str | None = None


class Store:
    """The place of one model in a folder of models."""

    def __init__(self, models_dir: Path, name: str) -> None:
        self.folder = models_dir / name
        self.partial = partial_folder(models_dir, name)

    def existing(self) -> Source | None:
        """Return where the model that is there came from; None if there is none.

        Raises `PullError` for one that was not downloaded by this program.
        """
        file = self.folder.with_name(f"{self.folder.name}.gguf")
        if file.exists():
            raise PullError(f"{file} is there already and serves as this model: move it away")
        if not self.folder.exists():
            return None
        try:
            return msgspec.json.decode((self.folder / _RECORD).read_bytes(), type=Source)
        except (OSError, msgspec.DecodeError) as error:
            raise PullError(
                f"{self.folder} is there already and was not downloaded by parlm: move it away"
            ) from error

    def fill(
        self, source: Source, files: Sequence[RemoteFile], fetch: Callable[[Path], None]
    ) -> Path:
        """Let `fetch` download the files into a folder, then give that its place; return it.

        Raises `PullError` when the disk is too small or another program is at the same download.
        """
        self.partial.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.partial.with_name(f"{self.partial.name}.lock"), timeout=0)
        try:
            with lock:
                self._check_space(files)
                fetch(self.partial)
                self._finish(source, files)
        except Timeout as error:
            raise PullError(f"another program is downloading into {self.partial}") from error
        return self.folder

    def _check_space(self, files: Sequence[RemoteFile]) -> None:
        missing = sum(file.size - self._arrived(file) for file in files)
        free = shutil.disk_usage(self.partial).free
        if missing > free:
            raise PullError(
                f"{self.partial.parent} needs {in_gb(missing)} more, and {in_gb(free)} are free on "
                "its disk: free some, or set MODELS_DIR to a folder on a larger one"
            )

    def _arrived(self, file: RemoteFile) -> int:
        places = (self.partial / file.name, part_path(file, self.partial))
        return max((p.stat().st_size for p in places if p.is_file()), default=0)

    def _finish(self, source: Source, files: Sequence[RemoteFile]) -> None:
        """Remove what an earlier, other download left, and move the rest to its place."""
        wanted = {file.name for file in files}
        for path in self.partial.iterdir():
            if path.name not in wanted:
                path.unlink()
        record = json.dumps(msgspec.to_builtins(source), indent=1)
        (self.partial / _RECORD).write_text(record + "\n", encoding="utf-8")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.partial.rename(self.folder)
