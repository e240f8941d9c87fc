"""Makes safetensors files of a PyTorch checkpoint: the `pytorch_model*.bin` of 2023.

Such a file is a pickle, which can run any code when it is opened. It is opened here with
`weights_only`, PyTorch's own unpickler that builds tensors and nothing else, and never anywhere
else: https://docs.pytorch.org/docs/stable/notes/serialization.html.
"""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch  # noqa: TID253 - imported only when a checkpoint is converted
from safetensors.torch import save_file
from torch import Tensor  # noqa: TID253

from engines.errors import ModelLoadError
from engines.huggingface_files import read_json

Progress = Callable[[int, int], None]

INDEX = "model.safetensors.index.json"
_SOURCE_INDEX = "pytorch_model.bin.index.json"
_SOURCES = "pytorch_model*.bin"


def convert_checkpoint(folder: Path, on_progress: Progress) -> list[Path]:
    """Write the checkpoint of a folder beside it as safetensors; return the new files.

    One file is in memory at a time. The new files appear when all of them are whole; what was
    there stays. `on_progress` is told the bytes done and in all. Raises `ModelLoadError` for a
    folder without a checkpoint or with safetensors, for a damaged file, for one that holds
    anything but tensors, and when the disk has too little room.
    """
    try:
        sources = _sources(folder)
        _check_room(folder, sources)
        with _new_files(folder, len(sources)) as targets:
            index = _write(sources, targets, on_progress)
            made = [target.replace(target.with_name(_final_name(target))) for target in targets]
            if len(made) > 1:
                _write_index(folder, index)
            return made
    except OSError as error:
        raise ModelLoadError(f"{error.filename or folder}: {error.strerror}") from error


def _sources(folder: Path) -> list[Path]:
    """Return the files of the checkpoint, those an index names or all."""
    if any(folder.glob("*.safetensors")):
        raise ModelLoadError(f"{folder} holds safetensors already: nothing is to be converted")
    files = sorted(folder.glob(_SOURCES))
    if (folder / _SOURCE_INDEX).is_file():
        named = read_json(folder / _SOURCE_INDEX).get("weight_map")
        names = set(named.values()) if isinstance(named, dict) else set()
        missing = names - {file.name for file in files}
        if missing:
            raise ModelLoadError(
                f"{folder} lacks {', '.join(sorted(map(str, missing)))}: finish the download"
            )
        files = [file for file in files if file.name in names]
    if not files:
        raise ModelLoadError(f"{folder} holds no {_SOURCES}: there is nothing to convert")
    return files


def _check_room(folder: Path, sources: Sequence[Path]) -> None:
    needed = sum(file.stat().st_size for file in sources)
    free = _free_bytes(folder)
    if free < needed:
        raise ModelLoadError(
            f"{folder}: the converted weights take {needed / 1e9:.1f} GB, and the disk has "
            f"{free / 1e9:.1f} GB left"
        )


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@contextmanager
def _new_files(folder: Path, count: int) -> Iterator[list[Path]]:
    """Give the paths to write to; they are removed when something goes wrong."""
    numbers = range(1, count + 1)
    names = [f"model-{number:05}-of-{count:05}.safetensors" for number in numbers]
    if count == 1:
        names = ["model.safetensors"]
    targets = [folder / f"{name}.partial" for name in names]
    try:
        yield targets
    except BaseException:
        for target in targets:
            target.unlink(missing_ok=True)
        raise


def _write(
    sources: Sequence[Path], targets: Sequence[Path], on_progress: Progress
) -> dict[str, str]:
    """Convert file by file; return the name of the file each tensor is in."""
    total, done = sum(source.stat().st_size for source in sources), 0
    index: dict[str, str] = {}
    on_progress(done, total)
    for source, target in zip(sources, targets, strict=True):
        tensors = _read(source)
        twice = tensors.keys() & index.keys()
        if twice:
            raise ModelLoadError(f"{source}: {min(twice)} is in another file too")
        save_file(_apart(tensors), target, metadata={"format": "pt"})
        shutil.copymode(source, target)  # it would be for the owner alone
        index |= dict.fromkeys(tensors, _final_name(target))
        done += source.stat().st_size
        on_progress(done, total)
    return index


def _read(source: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(
            source,
            map_location="cpu",
            weights_only=True,
            # Not possible with the format of before PyTorch 1.6.
            mmap=zipfile.is_zipfile(source),
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ModelLoadError(
            f"{source} is damaged, or holds more than tensors, which is not opened: "
            "download it again"
        ) from error
    if not isinstance(content, dict) or not content:
        raise ModelLoadError(f"{source} holds no tensors by name: it is no checkpoint of a model")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelLoadError(f"{source}: {name!r} is no tensor: it is no checkpoint of a model")
    return dict(content)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors such that no two share memory, which safetensors cannot express."""
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        is_alone = storage.data_ptr() not in seen and storage.nbytes() == tensor.nbytes
        apart[name] = tensor.contiguous() if is_alone else tensor.clone().contiguous()
        seen.add(storage.data_ptr())
    return apart


def _final_name(partial: Path) -> str:
    return partial.name.removesuffix(".partial")


def _write_index(folder: Path, index: dict[str, str]) -> None:
    content = {"metadata": {}, "weight_map": index}
    partial = folder / f"{INDEX}.partial"
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(folder / INDEX)
