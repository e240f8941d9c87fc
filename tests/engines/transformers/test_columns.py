"""The buffers of keys and values, as a plain list of rows would behave."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.transformers.columns import Columns

N_ROWS = 3


def content(values: list[float]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two layers of one head of width 1 that hold these numbers; the second doubled."""
    keys = torch.tensor(values).view(1, 1, -1, 1)
    return [(keys, -keys), (2 * keys, -2 * keys)] if values else []


def rows_in(columns: Columns, layer: int) -> list[list[float]]:
    """Each row's own columns of a layer, without padding."""
    keys = columns.cache.layers[layer].keys
    assert torch.equal(columns.cache.layers[layer].values, -keys)
    mask = columns.mask(0)
    return [keys[row, 0, mask[row], 0].tolist() for row in range(keys.shape[0])]


operation = st.one_of(
    st.tuples(st.just("join"), st.integers(0, 90)),
    st.tuples(st.just("leave"), st.integers(0, N_ROWS - 1)),
    st.tuples(st.just("step"), st.integers(1, 70)),
)


@given(st.lists(operation, max_size=25))
def test_rows_keep_what_they_hold(operations: list[tuple[str, int]]) -> None:
    columns = Columns(N_ROWS)
    expected: list[list[float]] = []
    fresh = iter(range(1, 100_000))
    for name, number in operations:
        if name == "join" and len(expected) < N_ROWS:
            values = [float(next(fresh)) for _ in range(number)]
            assert columns.join(content(values), number) == len(expected)
            expected.append(values)
        elif name == "leave" and number < len(expected):
            columns.leave(number)
            expected[number] = expected[-1]
            expected.pop()
        elif name == "step" and expected:
            for _ in range(number):
                new = [float(next(fresh)) for _ in expected]
                keys = torch.tensor(new).view(-1, 1, 1, 1)
                columns.reserve(1)
                for layer in range(2):
                    seen, _ = columns.cache.update((layer + 1) * keys, -(layer + 1) * keys, layer)
                    assert seen.shape[2] == columns.window.width + 1
                columns.commit(1)
                for row, value in zip(expected, new, strict=True):
                    row.append(value)
        assert columns.lengths == [len(row) for row in expected]
        assert columns.window.width == max(columns.lengths, default=0)
    if any(expected):
        assert rows_in(columns, 0) == expected
        assert rows_in(columns, 1) == [[2 * value for value in row] for row in expected]


def test_the_mask_is_false_for_padding() -> None:
    columns = Columns(2)
    columns.join(content([1.0, 2.0, 3.0]), 3)
    before = columns.has_padding
    columns.join(content([4.0]), 1)
    assert (before, columns.has_padding) == (False, True)
    assert columns.mask(1).tolist() == [[True] * 4, [False, False, True, True]]


def test_a_cleared_row_leaves_nothing_that_is_not_finite() -> None:
    columns = Columns(1)
    columns.join(content([float("nan"), 1.0]), 2)
    columns.leave(0, clear=True)
    columns.join(content([5.0]), 1)
    layer = columns.cache.layers[0]
    assert all(buffer.isfinite().all() for buffer in layer._buffers)


def test_buffers_stay_near_what_the_longest_row_needs() -> None:
    columns = Columns(1)
    for _ in range(40):
        columns.join(content([1.0] * 100), 100)
        for _ in range(30):
            columns.reserve(1)
            columns.commit(1)
        columns.leave(0)
    assert columns.window.capacity <= 250
