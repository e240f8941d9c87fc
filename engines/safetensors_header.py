"""Checks the header of a safetensors file before a library maps it.

Format: https://huggingface.co/docs/safetensors: an 8-byte little-endian length, that many bytes
of JSON (tensor -> dtype, shape, data_offsets), then the data.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from engines.errors import ModelLoadError

MAX_HEADER_BYTES = 100 * 1000 * 1000


def check_safetensors(file: Path) -> None:
    """Raise `ModelLoadError` unless the header is sound and every tensor lies inside the file.

    Raises `OSError` when the file cannot be read.
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
    _check_offsets(file, _parse(file, header), size - 8 - length)


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


def _truncated(file: Path, promised: int, size: int) -> ModelLoadError:
    return ModelLoadError(
        f"{file} is truncated: the header promises {promised} bytes, the file has {size}; "
        "download it again"
    )
