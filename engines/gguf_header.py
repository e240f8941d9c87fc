"""Writes the header of a GGUF file: what stands before the weights.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, version 3. The gguf package
would bring five others along, requests among them, for these few lines.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engines.gguf import MAGIC

VERSION = 3
ALIGNMENT = 32
_U32, _F32, _BOOL, _STRING, _ARRAY, _I32 = 4, 6, 7, 8, 9, 5

Value = bool | int | float | str | Sequence[str] | Sequence[int]


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to come: `dimensions` innermost first, ggml's number of its `type`, its bytes."""

    name: str
    dimensions: tuple[int, ...]
    type: int
    size: int


def pack_header(metadata: Mapping[str, Value], tensors: Sequence[NewTensor]) -> bytes:
    """Return the header; the tensors' data follow it in their order, each with its `padding`.

    Integers become u32, floats f32, sequences arrays of strings or of i32.
    """
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    parts += [_string(key) + _value(value) for key, value in metadata.items()]
    offset = 0
    for tensor in tensors:
        n = len(tensor.dimensions)
        place = struct.pack(f"<I{n}QIQ", n, *tensor.dimensions, tensor.type, offset)
        parts.append(_string(tensor.name) + place)
        offset += tensor.size + padding(tensor.size)
    header = b"".join(parts)
    return header + bytes(padding(len(header)))


def padding(size: int) -> int:
    """Return how many bytes stand between something of `size` bytes and the next boundary."""
    return -size % ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", _BOOL, value)
        case int():
            return struct.pack("<II", _U32, value)
        case float():
            return struct.pack("<If", _F32, value)
        case str():
            return struct.pack("<I", _STRING) + _string(value)
    texts = [_string(item) for item in value if isinstance(item, str)]
    if texts:
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(texts)
    return struct.pack(f"<IIQ{len(value)}i", _ARRAY, _I32, len(value), *value)
