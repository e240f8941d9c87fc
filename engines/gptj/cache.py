"""Where the GGUF file of a legacy one is kept, and how it gets there whole or not at all.

It lies beside the legacy file, or in a cache folder where that one cannot be written. It is used
again for as long as the legacy file has the size and the time of change that stand in it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from engines.errors import ModelLoadError
from engines.gguf import read_gguf
from engines.gptj.conversion import Conversion, Progress
from engines.gptj.legacy_file import gguf_beside, read_legacy

CACHE = Path("~/.cache/parlm/gguf")
ORIGIN_KEY = "parlm.converted_from"
# To be raised when the same legacy file would become another GGUF file than before.
CONVERTER_VERSION = 1


def converted(source: Path, on_progress: Progress) -> Path:
    """Return the GGUF file of a legacy one, made now unless there is one already.

    Raises `ModelLoadError` for a legacy file that is damaged, and where there is no room.
    """
    source = source.resolve()
    places = _places(source)
    for place in places:
        if _is_current(place, source):
            return place
    reasons = []
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            _write(source, place, on_progress)
            return place
        except OSError as error:
            reasons.append(f"{place.parent}: {error.strerror}")
    raise ModelLoadError(
        f"{source} must be converted to GGUF, and there is no place for that "
        f"({'; '.join(reasons)}). Make room, or convert it to a place of your choice with "
        "`parlm convert gptj SOURCE TARGET` and set LLM_MODEL_PATH to the TARGET"
    )


def convert(source: Path, target: Path, on_progress: Progress) -> None:
    """Make a GGUF file of a legacy one. Raises `ModelLoadError`."""
    try:
        _write(source.resolve(), target, on_progress)
    except OSError as error:
        raise ModelLoadError(f"{target} cannot be written: {error.strerror}") from error


def _places(source: Path) -> tuple[Path, Path]:
    beside = gguf_beside(source)
    folder = hashlib.sha256(os.fsencode(source.parent)).hexdigest()[:12]
    return beside, CACHE.expanduser() / folder / beside.name


def _origin(source: Path) -> str:
    status = source.stat()
    return f"{status.st_size} bytes of {status.st_mtime_ns} ns, converter {CONVERTER_VERSION}"


def _is_current(place: Path, source: Path) -> bool:
    try:
        return read_gguf(place).metadata.get(ORIGIN_KEY) == _origin(source)
    except (ModelLoadError, OSError):
        return False  # there is none, or it is damaged: it is made anew


def _write(source: Path, target: Path, on_progress: Progress) -> None:
    """Write `target` beside its place and move it there. Raises `OSError`, `ModelLoadError`."""
    conversion = Conversion(read_legacy(source), {ORIGIN_KEY: _origin(source)})
    partial = target.with_name(f"{target.name}.partial")
    with _locked(partial) as file:
        if _is_current(target, source):  # another process was faster
            partial.unlink()
            return
        try:
            _check_room(partial.parent, conversion.size)
            conversion.write(file, on_progress)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink()
            raise


def _check_room(folder: Path, size: int) -> None:
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, f"{size / 1e9:.1f} GB are needed, and there is no room")


@contextmanager
def _locked(partial: Path) -> Iterator[BinaryIO]:
    """Open a file, emptied, for one process at a time; others wait here.

    Its name is always the same, so what a killed process left is overwritten by the next.
    """
    while True:
        with partial.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(partial, file):  # else whoever had the lock has moved or removed it
                file.truncate(0)
                yield file
                return


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
