"""Reads the header of a legacy GGML file of a GPT-J model, distrusting every number in it.

Little-endian, nothing aligned: magic; seven i32 (`Shape`); i32 n_vocab once more; n_vocab times
u32 length and the bytes of a token; then tensors to the end of the file, each i32 number of
dimensions, i32 length of the name, i32 type, i32 dimensions (innermost first), name, data.
Source: examples/gpt-j of https://github.com/ggml-org/ggml as of May 2023.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engines.errors import ModelLoadError

MAGIC = b"lmgg"
"""The number 0x67676d6c as it stands in the file. Files of other old models begin with it too."""
END_OF_TEXT = b"<|endoftext|>"
F32, F16, Q4_0, Q4_1 = 0, 1, 2, 3

# GPT-2's longest token has 128 bytes, and its whole vocabulary takes half a megabyte.
MAX_TOKEN_BYTES = 256
MAX_VOCABULARY_BYTES = 8 * 2**20
_MAX_NAME_BYTES = 128
# Above every model of the family by far; a product of them cannot overflow in native code.
_MAX = {"n_vocab": 2**20, "n_ctx": 2**20, "n_embd": 2**16, "n_head": 2**10, "n_layer": 512}
# ftype is 1000 * version of the quantised formats + the format of most weights. Version 1 lasted
# for a week of May 2023; version 2 is today's. Tensor type -> values per block, bytes per block.
_VERSION_FACTOR = 1000
_PLAIN = {F32: (1, 4), F16: (1, 2)}
_TENSOR_TYPES: Mapping[int, Mapping[int, tuple[int, int]]] = {
    0: _PLAIN | {Q4_0: (32, 20), Q4_1: (32, 24)},
    2: _PLAIN | {Q4_0: (32, 18), Q4_1: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)},
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The hyperparameters, in the order of the file. `n_rot` numbers of each head are rotated."""

    n_vocab: int
    n_ctx: int
    n_embd: int
    n_head: int
    n_layer: int
    n_rot: int
    ftype: int

    @property
    def head_size(self) -> int:
        """Numbers in a key or query of one head."""
        return self.n_embd // self.n_head

    @property
    def quantisation_version(self) -> int:
        """Which layout the quantised blocks have: 0 the original one, 2 today's."""
        return self.ftype // _VERSION_FACTOR


@dataclass(frozen=True, slots=True)
class LegacyTensor:
    """A tensor's place: `dimensions` innermost first, `offset` and `size` in bytes."""

    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class LegacyFile:
    """What the file says but for the weights; `tensors` are all of the model's, by name."""

    path: Path
    shape: Shape
    vocabulary: tuple[bytes, ...]
    tensors: Mapping[str, LegacyTensor]
    size: int


class _Wrong(Exception):
    """What is wrong with the file, as the end of a sentence about it."""


def read_legacy(path: Path) -> LegacyFile:
    """Read and check everything but the weights.

    Raises `ModelLoadError`, which names the file, what is wrong with it and what would help.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file, path).read()
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error
    except _Wrong as error:
        raise ModelLoadError(f"{path} {error}") from error


def gguf_beside(path: Path) -> Path:
    """Return where the GGUF file that is made of a legacy one is kept, if that can be written."""
    return path.with_name(f"{path.name}.gguf")


def expected_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the names of a model's tensors and their dimensions, innermost first."""
    width, wide = shape.n_embd, 4 * shape.n_embd
    tensors: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (width, shape.n_vocab),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
        "lm_head.weight": (width, shape.n_vocab),
        "lm_head.bias": (shape.n_vocab,),
    }
    block: dict[str, tuple[int, ...]] = {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.q_proj.weight": (width, width),
        "attn.k_proj.weight": (width, width),
        "attn.v_proj.weight": (width, width),
        "attn.out_proj.weight": (width, width),
        "mlp.fc_in.weight": (width, wide),
        "mlp.fc_in.bias": (wide,),
        "mlp.fc_out.weight": (wide, width),
        "mlp.fc_out.bias": (width,),
    }
    for layer in range(shape.n_layer):
        tensors |= {f"transformer.h.{layer}.{name}": size for name, size in block.items()}
    return tensors


class _Reader:
    """Walks through an open file from its beginning."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._size = os.fstat(file.fileno()).st_size
        self._part = "header"

    def read(self) -> LegacyFile:
        shape = self._read_shape()
        self._part = "vocabulary"
        vocabulary = self._read_vocabulary(shape.n_vocab)
        tensors = self._read_tensors(shape)
        return LegacyFile(self._path, shape, vocabulary, tensors, self._size)

    def _read_shape(self) -> Shape:
        if (magic := self._take(len(MAGIC))) != MAGIC:
            raise _Wrong(f"is not a GGML file: it begins with {magic!r}")
        *numbers, repeated = self._unpack("8i")
        shape = Shape(*numbers)
        # The files of GPT-2, GPT-NeoX, LLaMA and MPT have other numbers there.
        if shape.n_vocab < 1 or repeated != shape.n_vocab:
            raise _Wrong(
                "is in the GGML format of before August 2023 and not of GPT-J, the only model "
                "that can be converted from it: get a GGUF of the model"
            )
        _check_shape(shape)
        return shape

    def _read_vocabulary(self, count: int) -> tuple[bytes, ...]:
        tokens = []
        for number in range(count):
            (size,) = self._unpack("I")
            if size > MAX_TOKEN_BYTES:
                raise _Wrong(f"is damaged: token {number} has {size} bytes; download it again")
            tokens.append(self._take(size))
            if self._file.tell() > MAX_VOCABULARY_BYTES:
                raise _Wrong(f"has a vocabulary above {MAX_VOCABULARY_BYTES} bytes; refused")
        if len(set(tokens)) != count:
            raise _Wrong("is damaged: two tokens of its vocabulary are the same")
        if END_OF_TEXT not in tokens:
            raise _Wrong(f"has no token {END_OF_TEXT.decode()!r}, which ends a GPT-J's answers")
        return tuple(tokens)

    def _read_tensors(self, shape: Shape) -> dict[str, LegacyTensor]:
        missing = expected_tensors(shape)
        tensors: dict[str, LegacyTensor] = {}
        while self._file.tell() < self._size:
            self._part = "list of tensors"
            tensor = self._read_tensor(shape.quantisation_version, missing)
            tensors[tensor.name] = tensor
        if missing:
            raise _Wrong(
                f"is truncated: {len(missing)} tensors are missing, the first is "
                f"{next(iter(missing))}; download it again"
            )
        return tensors

    def _read_tensor(self, version: int, missing: dict[str, tuple[int, ...]]) -> LegacyTensor:
        n_dimensions, name_size, kind = self._unpack("3i")
        if not 1 <= n_dimensions <= 2 or not 1 <= name_size <= _MAX_NAME_BYTES:
            raise _Wrong("is damaged: where a tensor should begin there is none; download it again")
        dimensions = self._unpack(f"{n_dimensions}i")
        name = self._take(name_size).decode("utf-8", "backslashreplace")
        expected = missing.pop(name, None)
        if expected is None:
            raise _Wrong(f"has a tensor {name!r}, which no GPT-J has, or has it twice")
        if dimensions != expected:
            raise _Wrong(f"is damaged: {name} has the shape {dimensions}, it should be {expected}")
        size = _tensor_size(name, dimensions, kind, version)
        offset = self._file.tell()
        self._part = f"tensor {name}"
        if offset + size > self._size:
            raise self._end()
        self._file.seek(size, os.SEEK_CUR)
        return LegacyTensor(name, dimensions, kind, offset, size)

    def _unpack(self, codes: str) -> tuple[int, ...]:
        format_ = struct.Struct(f"<{codes}")
        return format_.unpack(self._take(format_.size))

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise self._end()
        return data

    def _end(self) -> _Wrong:
        return _Wrong(
            f"is truncated: it ends after {self._size} bytes, inside its {self._part}; "
            "download it again"
        )


def _check_shape(shape: Shape) -> None:
    for name, limit in _MAX.items():
        if not 1 <= (value := getattr(shape, name)) <= limit:
            raise _Wrong(f"is damaged: its {name} is {value}; download it again")
    if shape.n_embd % shape.n_head:
        raise _Wrong(f"is damaged: {shape.n_head} heads cannot share {shape.n_embd} numbers")
    if shape.n_rot % 2 or not 2 <= shape.n_rot <= shape.head_size:
        raise _Wrong(f"is damaged: {shape.n_rot} of {shape.head_size} numbers cannot be rotated")
    if shape.quantisation_version not in _TENSOR_TYPES:
        raise _Wrong(
            f"is quantised in a format (ftype {shape.ftype}) that cannot be converted: get the "
            "model as GGUF, or a file of ftype 0 to 3"
        )


def _tensor_size(name: str, dimensions: tuple[int, ...], kind: int, version: int) -> int:
    """Bytes a tensor takes. Norms and biases are never quantised: llama.cpp wants them plain."""
    types = _TENSOR_TYPES[version] if len(dimensions) == 2 else _PLAIN
    if kind not in types:
        raise _Wrong(f"has {name} in the format {kind}, which is not known here")
    values, size = types[kind]
    if dimensions[0] % values:
        raise _Wrong(f"is damaged: the rows of {name} are no whole blocks of {values}")
    return math.prod(dimensions) // values * size
