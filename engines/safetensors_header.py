"""Checks the header of a safetensors file before a library maps it.

Format: https://huggingface.co/docs/safetensors: an 8-byte little-endian length, that many bytes
of JSON (tensor -> dtype, shape, data_offsets), then the data.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from engines.errors import ModelLoadError

MAX_HEADER_BYTES = 100 * 1000 * 1000


# Types that hold one parameter in each number; others are packed, or belong to a packing.
_PLAIN_TYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


def check_safetensors(file: Path) -> int:
    """Return how many parameters a file holds; 0 when a quantisation packs them.

    Raises `ModelLoadError` unless the header is sound and every tensor lies inside the file, and
    `OSError` when the file cannot be read.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        prefix = opened.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise ModelLoadError(f"{file} is not a safetensors file; download it again")
        header = opened.read(length)
    if len(header) < length:
        raise _truncated(file, 8 + length, size)
    tensors = _parse(file, header)
    _check_offsets(file, tensors, size - 8 - length)
    return _count_parameters(tensors)


def _parse(file: Path, header: bytes) -> dict[str, Any]:
    try:
        content = json.loads(header, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{file} has a damaged header; download it again") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{file} has a damaged header; download it again")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of the header; `json` alone would let a second equal name win."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name stands twice")
    return content


def _check_offsets(file: Path, header: dict[str, Any], data_size: int) -> None:
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        match tensor:
            case {"data_offsets": [int(begin), int(end)]} if 0 <= begin <= end:
                if end > data_size:
                    whole = file.stat().st_size
                    raise _truncated(file, whole - data_size + end, whole)
            case _:
                raise ModelLoadError(f"{file} is damaged at tensor {name!r}; download it again")


def _count_parameters(header: dict[str, Any]) -> int:
    total = 0
    for name, tensor in header.items():
        match tensor:
            case {"dtype": str(dtype), "shape": [*shape]} if all(_is_size(n) for n in shape):
                if dtype in _PLAIN_TYPES:
                    total += math.prod(shape)
                elif name.endswith(("weight", "weight_packed", "qweight")):
                    return 0
    return total


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 0


def _truncated(file: Path, promised: int, size: int) -> ModelLoadError:
    return ModelLoadError(
        f"{file} is truncated: the header promises {promised} bytes, the file has {size}; "
        "download it again"
    )
