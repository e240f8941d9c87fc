"""Reads the weights of a ChatGLM folder file by file, and tells by name what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from torch import Tensor  # noqa: TID253 - imported only when a ChatGLM model is loaded

from engines.errors import ModelLoadError
from engines.safetensors_header import check_safetensors

Shape = tuple[int, ...]

# Computed, not read; the authors' own loader ignores it too.
_IGNORED_SUFFIX = ".inv_freq"
_SHOWN_NAMES = 3


def find_weights(folder: Path) -> list[Path]:
    """Return the safetensors files. Raises `ModelLoadError` if there are none, or a damaged one."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelLoadError(
            f"{folder} holds no safetensors weights. If it holds the authors' pickled ones "
            f"(pytorch_model-*.bin), convert them once: parlm convert checkpoint {folder}"
        )
    for file in files:
        check_safetensors(file)
    return files


def check_tensors(files: Sequence[Path], expected: Mapping[str, Shape]) -> None:
    """Raise `ModelLoadError` unless the files hold the expected tensors and no others."""
    shapes: dict[str, Shape] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                shapes[name] = tuple(opened.get_slice(name).get_shape())
    folder = files[0].parent
    missing = [name for name in expected if name not in shapes]
    if missing:
        raise ModelLoadError(f"{folder} lacks the weights {_shown(missing)}: download it again")
    unexpected = [n for n in shapes if n not in expected and not n.endswith(_IGNORED_SUFFIX)]
    if unexpected:
        raise ModelLoadError(
            f"{folder} holds weights that do not belong to its config.json: {_shown(unexpected)}"
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise ModelLoadError(
                f"{folder}: {name} has shape {shapes[name]}; config.json asks for {shape}"
            )


def read_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of one file by name; each is read only when it is used."""
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - no mapping
            if not name.endswith(_IGNORED_SUFFIX):
                yield name, opened.get_tensor(name)


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
