"""The rows of a legacy tensor as llama.cpp's phi2 wants them, some megabytes at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from engines.gguf_header import NewTensor
from engines.gptj.blocks import Bytes, repack_q4_0, repack_q4_1
from engines.gptj.legacy_file import F16, F32, Q4_0, Q4_1, LegacyTensor, Shape

CHUNK_BYTES = 4 * 2**20
# Of the original quantised types: bytes of an old and of a new block, and how it becomes that.
_REPACKED: dict[int, tuple[int, int, Callable[[Bytes], Bytes]]] = {
    Q4_0: (20, 18, repack_q4_0),
    Q4_1: (24, 20, repack_q4_1),
}
_ROTATED = ("attn.q_proj.weight", "attn.k_proj.weight")


def target_of(name: str, tensor: LegacyTensor, shape: Shape) -> NewTensor:
    """Describe the tensor `name` that a legacy one becomes."""
    kind, size = tensor.type, tensor.size
    if _is_half_vector(tensor):
        kind, size = F32, 2 * size
    elif shape.quantisation_version == 0 and kind in _REPACKED:
        old, new, _ = _REPACKED[kind]
        size = size // old * new
    return NewTensor(name, tensor.dimensions, kind, size)


def converted_rows(
    tensor: LegacyTensor, shape: Shape, read: Callable[[int], bytes]
) -> Iterator[Bytes]:
    """Yield the data of a tensor; `read` gives the next so many bytes of the legacy data.

    Raises `ScaleOutOfRange`, and what `read` does.
    """
    n_rows = 1 if len(tensor.dimensions) == 1 else tensor.dimensions[1]
    row_bytes = tensor.size // n_rows
    is_rotated = tensor.name.endswith(_ROTATED)
    unit = shape.head_size if is_rotated else 1
    step = max(CHUNK_BYTES // (row_bytes * unit), 1) * unit
    for start in range(0, n_rows, step):
        n = min(step, n_rows - start)
        rows = np.frombuffer(read(n * row_bytes), np.uint8).reshape(n, row_bytes)
        if is_rotated:
            heads = rows.reshape(-1, shape.head_size, row_bytes)
            rows = heads[:, rotation_order(shape)].reshape(n, row_bytes)
        yield _converted(rows, tensor, shape)


def rotation_order(shape: Shape) -> NDArray[np.intp]:
    """Return which row of a head goes where, so that rotating halves rotates what were pairs."""
    pairs = np.arange(shape.n_rot).reshape(-1, 2)
    return np.concatenate([pairs[:, 0], pairs[:, 1], np.arange(shape.n_rot, shape.head_size)])


def _is_half_vector(tensor: LegacyTensor) -> bool:
    """Whether these are norms or biases in f16: llama.cpp computes with f32 ones only."""
    return len(tensor.dimensions) == 1 and tensor.type == F16


def _converted(rows: Bytes, tensor: LegacyTensor, shape: Shape) -> Bytes:
    if _is_half_vector(tensor):
        return rows.view("<f2").astype("<f4").view(np.uint8)
    if shape.quantisation_version == 0 and tensor.type in _REPACKED:
        old, _, repack = _REPACKED[tensor.type]
        return repack(rows.reshape(-1, old))
    return rows
