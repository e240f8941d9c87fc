"""Blocks are re-packed number by number; only scales are rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from engines.gptj.blocks import ScaleOutOfRange, repack_q4_0, repack_q4_1

Bytes = NDArray[np.uint8]
halves: Any = st.floats(width=16, allow_nan=False, allow_infinity=False)
scales: Any = st.floats(-65504, 65504, width=32)
packed_numbers = arrays.arrays(np.uint8, 16)


def block(numbers: Bytes, *scales: float) -> Bytes:
    head = np.array(scales, "<f4").view(np.uint8)
    return np.concatenate([head, numbers])[None]


def old_numbers(pairs: Bytes) -> list[int]:
    """Byte j of the original layout: the numbers 2j and 2j + 1."""
    return [number for byte in pairs.tolist() for number in (byte & 15, byte >> 4)]


def new_numbers(halves: Bytes) -> list[int]:
    """Byte j of today's layout: the numbers j and j + 16."""
    return [byte & 15 for byte in halves.tolist()] + [byte >> 4 for byte in halves.tolist()]


@given(packed_numbers, scales)
def test_q4_0(numbers: Bytes, scale: float) -> None:
    (new,) = repack_q4_0(block(numbers, scale))
    assert new.shape == (18,)
    assert new[:2].tobytes() == np.float16(scale).tobytes()
    assert new_numbers(new[2:]) == old_numbers(numbers)


@given(packed_numbers, scales, scales)
def test_q4_1(numbers: Bytes, scale: float, minimum: float) -> None:
    (new,) = repack_q4_1(block(numbers, scale, minimum))
    assert new.shape == (20,)
    assert new[:4].tobytes() == np.array([scale, minimum], np.float16).tobytes()
    assert new_numbers(new[4:]) == old_numbers(numbers)


@given(packed_numbers, halves, halves)
def test_what_ggml_reads_is_what_the_old_layout_meant(
    numbers: Bytes, scale: float, minimum: float
) -> None:
    """With scales that f16 holds nothing changes at all, by ggml's own formulas."""
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    plain = np.array(old_numbers(numbers), np.float32)
    kinds = gguf.GGMLQuantizationType
    q4_0 = gguf.quants.dequantize(repack_q4_0(block(numbers, scale)), kinds.Q4_0)
    assert np.array_equal(q4_0[0], (plain - 8) * np.float32(scale))
    q4_1 = gguf.quants.dequantize(repack_q4_1(block(numbers, scale, minimum)), kinds.Q4_1)
    assert np.array_equal(q4_1[0], plain * np.float32(scale) + np.float32(minimum))


@given(st.lists(st.tuples(packed_numbers, scales), min_size=1, max_size=20))
def test_blocks_do_not_mix(blocks: list[tuple[Bytes, float]]) -> None:
    together = repack_q4_0(np.concatenate([block(*each) for each in blocks]))
    assert np.array_equal(together, np.concatenate([repack_q4_0(block(*each)) for each in blocks]))


@given(scales)
def test_how_far_a_weight_moves(scale: float) -> None:
    (new,) = repack_q4_0(block(np.zeros(16, np.uint8), scale))
    rounded = float(new[:2].view("<f2")[0])
    assert abs(8 * rounded - 8 * scale) <= max(abs(8 * scale) / 2048, 2.4e-7)


@pytest.mark.parametrize("scale", [65520.0, -1e9, np.inf, -np.inf, np.nan])
def test_scales_that_f16_cannot_hold(scale: float) -> None:
    good = block(np.zeros(16, np.uint8), 1.0)
    with pytest.raises(ScaleOutOfRange):
        repack_q4_0(np.concatenate([good, block(np.zeros(16, np.uint8), scale)]))
    with pytest.raises(ScaleOutOfRange):
        repack_q4_1(block(np.zeros(16, np.uint8), 1.0, scale))
