"""Reads the header of a GGUF file in pure Python, distrusting every number in it.

It runs before any native code opens the file: a hostile or damaged header has crashed native
readers more than once. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.errors import ModelLoadError

MAGIC = b"GGUF"
MAX_HEADER_BYTES = 64 * 1024 * 1024
MAX_COUNT = 65_535
MAX_STRING_BYTES = 1024 * 1024
MAX_ARRAY = 4 * 1024 * 1024
MAX_DIMENSIONS = 4
_FIRST_READ_BYTES = 1024 * 1024
_DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
# Value type -> struct code.
_SCALARS = {
    **{0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"},
    **{10: "Q", 11: "q", 12: "d"},
}
# Tensor type -> values per block, bytes per block. Source: ggml.h and ggml-common.h.
_TENSOR_TYPES = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)},
    **{9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176)},
    **{14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98)},
    **{19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136)},
    **{24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2)},
    **{34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18)},
}


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """A tensor's place: `dimensions` innermost first, `offset` in bytes from the data's start."""

    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class SkippedArray:
    """An array of the metadata that was checked and not read."""

    length: int


Scalar = str | int | float | bool
Value = Scalar | tuple[Scalar, ...] | SkippedArray


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What stands before the weights. `data_offset` is where those begin, in bytes."""

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[GGUFTensor, ...]
    data_offset: int
    file_size: int


class _Wrong(Exception):
    """What is wrong with the header, as the end of a sentence about the file."""


class _EndOfBuffer(Exception):
    """The header goes on behind what was read."""


def read_gguf(path: Path, arrays: Collection[str] = ()) -> GGUFHeader:
    """Read and check the header of a GGUF file (version 2 or 3).

    Arrays of the metadata are read when their key is in `arrays`, else skipped. Raises
    `ModelLoadError`, which names the file, what is wrong with it and what would help.
    """
    data = b""
    try:
        if not path.is_file():
            raise _Wrong("is not a regular file" if path.exists() else "does not exist")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for limit in (_FIRST_READ_BYTES, MAX_HEADER_BYTES // 4, MAX_HEADER_BYTES):
                data += file.read(limit - len(data))
                try:
                    return _Reader(data, arrays).read_header(size)
                except _EndOfBuffer:
                    if len(data) < limit:
                        break
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error
    except _Wrong as error:
        raise ModelLoadError(f"{path} {error}") from error
    if len(data) == MAX_HEADER_BYTES:
        raise ModelLoadError(f"{path} has a header above {MAX_HEADER_BYTES} bytes; refused")
    raise ModelLoadError(
        f"{path} is truncated: the file ends after {size} bytes, inside its header; "
        "download it again"
    )


class _Reader:
    """Walks through the bytes of a header from its beginning."""

    def __init__(self, data: bytes, arrays: Collection[str]) -> None:
        self._data = data
        self._position = 0
        self._arrays = arrays

    def read_header(self, file_size: int) -> GGUFHeader:
        """Read everything up to the weights, and check it against the size of the file."""
        version = self._read_version()
        tensor_count = self._read_count("tensors")
        metadata_count = self._read_count("metadata entries")
        metadata = self._read_metadata(metadata_count)
        alignment = _alignment(metadata)
        tensors = self._read_tensors(tensor_count, alignment)
        data_offset = math.ceil(self._position / alignment) * alignment
        promised = data_offset + max((t.offset + t.size for t in tensors), default=0)
        if promised > file_size:
            raise _Wrong(
                f"is truncated: the header promises {promised} bytes, the file has {file_size}; "
                "download it again"
            )
        return GGUFHeader(version, metadata, tensors, data_offset, file_size)

    def _read_version(self) -> int:
        magic = self._take(4)
        if magic != MAGIC:
            raise _Wrong(f"is not a GGUF file: it begins with {magic!r}")
        version = self._read_int("I")
        if version in (2, 3):
            return version
        if version == 1:
            raise _Wrong("is GGUF version 1, which nothing reads any more; convert it anew")
        if version & 0xFFFF == 0:
            raise _Wrong("was written for big-endian machines; get the little-endian file")
        raise _Wrong(f"is GGUF version {version}; this program reads versions 2 and 3")

    def _read_count(self, what: str) -> int:
        count = self._read_int("Q")
        if count > MAX_COUNT:
            raise _Wrong(f"is damaged: it claims {count} {what}; download it again")
        return count

    def _read_metadata(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(count):
            key = self._read_string()
            if key in metadata:
                raise _Wrong(f"is damaged: the key {key!r} stands twice in its metadata")
            metadata[key] = self._read_value(key)
        return metadata

    def _read_value(self, key: str) -> Value:
        kind = self._read_int("I")
        if kind == _STRING:
            return self._read_string()
        if kind != _ARRAY:
            value: Scalar = self._unpack(_scalar_code(kind, key))[0]
            return value
        kind, length = self._read_int("I"), self._read_int("Q")
        if kind == _STRING:
            return self._read_strings(length, key in self._arrays)
        code = _scalar_code(kind, key)
        if key in self._arrays:
            if length > MAX_ARRAY:  # as numbers of Python it takes many times its bytes
                raise _Wrong(f"is damaged: {key!r} claims {length} numbers; download it again")
            return self._unpack(f"{length}{code}")
        self._take_none(length * struct.calcsize(code))
        return SkippedArray(length)

    def _read_strings(self, length: int, is_wanted: bool) -> tuple[str, ...] | SkippedArray:
        """Walk over an array of strings, a vocabulary of hundreds of thousands perhaps."""
        if length > MAX_HEADER_BYTES // 8:  # each takes eight bytes at least
            raise _Wrong(f"is damaged: it claims an array of {length} strings; download it again")
        data, position, strings = self._data, self._position, []
        unpack = struct.Struct("<Q").unpack_from
        try:
            for _ in range(length):
                (size,) = unpack(data, position)
                if size > MAX_STRING_BYTES:
                    raise _Wrong(_long_string(size))
                position += 8 + size
                if is_wanted:
                    strings.append(data[position - size : position].decode("utf-8", "replace"))
        except struct.error:
            raise _EndOfBuffer from None
        self._take_none(position - self._position)
        return tuple(strings) if is_wanted else SkippedArray(length)

    def _read_tensors(self, count: int, alignment: int) -> tuple[GGUFTensor, ...]:
        tensors = tuple(self._read_tensor(alignment) for _ in range(count))
        if len({tensor.name for tensor in tensors}) != count:
            raise _Wrong("is damaged: two tensors have the same name")
        return tensors

    def _read_tensor(self, alignment: int) -> GGUFTensor:
        name = self._read_string()
        n_dimensions = self._read_int("I")
        if not 1 <= n_dimensions <= MAX_DIMENSIONS:
            raise _Wrong(f"is damaged: tensor {name!r} has {n_dimensions} dimensions")
        dimensions = self._unpack(f"{n_dimensions}Q")
        kind, offset = self._read_int("I"), self._read_int("Q")
        if offset % alignment:
            raise _Wrong(f"is damaged: tensor {name!r} lies at {offset}, not on a boundary")
        return GGUFTensor(name, dimensions, kind, offset, _tensor_size(name, dimensions, kind))

    def _read_string(self) -> str:
        size = self._read_int("Q")
        if size > MAX_STRING_BYTES:
            raise _Wrong(_long_string(size))
        return self._take(size).decode("utf-8", "replace")

    def _read_int(self, code: str) -> int:
        return int(self._unpack(code)[0])

    def _unpack(self, codes: str) -> tuple[int, ...]:
        format_ = "<" + codes
        return struct.unpack(format_, self._take(struct.calcsize(format_)))

    def _take(self, size: int) -> bytes:
        start = self._position
        self._take_none(size)
        return self._data[start : start + size]

    def _take_none(self, size: int) -> None:
        if self._position + size > len(self._data):
            raise _EndOfBuffer
        self._position += size


def _long_string(size: int) -> str:
    return f"is damaged: it claims a string of {size} bytes; download it again"


def _scalar_code(kind: int, key: str) -> str:
    code = _SCALARS.get(kind)
    if code is None:
        raise _Wrong(f"is damaged: {key!r} in its metadata is of the unknown type {kind}")
    return code


def _alignment(metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise _Wrong(f"is damaged: its alignment {alignment!r} is no power of two")
    return alignment


def _tensor_size(name: str, dimensions: tuple[int, ...], kind: int) -> int:
    """Bytes a tensor takes; Python's integers do not overflow, the readers' below do."""
    block = _TENSOR_TYPES.get(kind)
    if block is None:
        raise _Wrong(f"has tensor {name!r} in the format {kind}, which is not known here")
    values = math.prod(dimensions)
    if values == 0 or values >= 2**63:
        raise _Wrong(f"is damaged: tensor {name!r} has the shape {dimensions}")
    if dimensions[0] % block[0]:
        raise _Wrong(f"is damaged: rows of tensor {name!r} are no whole blocks of {block[0]}")
    return values // block[0] * block[1]
