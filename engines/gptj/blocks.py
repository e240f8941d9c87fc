"""The blocks of quantised numbers as they were until May 2023, re-packed as they are today.

The numbers stay what they are: nothing is quantised again. Only the scale of a block, and the
minimum of a q4_1 one, are rounded from f32 to f16, to one part in 2048. Sources: ggml.c before
and ggml-common.h after https://github.com/ggml-org/llama.cpp/pull/1405 and pull/1508.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


class ScaleOutOfRange(Exception):
    """A scale is not finite, or above the largest number of f16."""


def repack_q4_0(blocks: Bytes) -> Bytes:
    """Make blocks of 18 bytes of blocks of 20, rows of either array.

    A block is 32 times (q - 8) * scale. Old: f32 scale, then byte j holds q[2j] in its low and
    q[2j + 1] in its high half. New: f16 scale, then byte j holds q[j] and q[j + 16].
    """
    return _repack(blocks, n_scales=1)


def repack_q4_1(blocks: Bytes) -> Bytes:
    """Make blocks of 20 bytes of blocks of 24: as q4_0, but q * scale + minimum, in that order."""
    return _repack(blocks, n_scales=2)


def _repack(blocks: Bytes, n_scales: int) -> Bytes:
    pairs = blocks[:, 4 * n_scales :]
    numbers = np.empty((len(blocks), 32), np.uint8)
    numbers[:, 0::2] = pairs & 15
    numbers[:, 1::2] = pairs >> 4
    packed = np.empty((len(blocks), 2 * n_scales + 16), np.uint8)
    packed[:, : 2 * n_scales] = _half(blocks[:, : 4 * n_scales])
    packed[:, 2 * n_scales :] = numbers[:, :16] | numbers[:, 16:] << 4
    return packed


def _half(scales: Bytes) -> Bytes:
    """Round f32 to f16. Below 6.1e-5 f16 is coarser; no weight moves by more than 5e-7 then."""
    with np.errstate(over="ignore", invalid="ignore"):
        half = np.ascontiguousarray(scales).view("<f4").astype("<f2")
    if not np.isfinite(half).all():
        raise ScaleOutOfRange
    return half.view(np.uint8)
