"""Keys and values of many sequences side by side, aligned at their newest token.

Every row ends at the same column; what a shorter one lacks is on its left and masked. That is
the layout for which the models of transformers are written (left padding), so relative positions
(ALiBi, T5) are right for every row, and a step appends one column for all without moving any.
The window of columns in use wanders to the right through buffers somewhat wider than the longest
row, and is moved back to their start when it meets their end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

KeysAndValues = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Of each layer, [1, heads, tokens, width]."""

# Columns a buffer has beyond the window, at least: as many steps until it must be moved.
_MARGIN = 64


@dataclass(slots=True)
class Window:
    """Which columns of the buffers hold something: [start, end) of the first `n_rows` rows."""

    n_rows: int = 0
    start: int = 0
    end: int = 0
    capacity: int = 0

    @property
    def width(self) -> int:
        """Columns in use: the length of the longest row."""
        return self.end - self.start


class Layer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's buffers, `[rows, heads, capacity, width]`; made at the first use."""

    is_sliding = False

    def __init__(self, n_rows: int, window: Window) -> None:
        # Not the parent's: its `keys` and `values` are properties here.
        self.is_initialized = False
        self._n_rows = n_rows
        self._window = window
        self._buffers: list[torch.Tensor] = []

    @property
    def keys(self) -> torch.Tensor:
        """The keys in the window."""
        return self._shown(self._buffers[0])

    @property
    def values(self) -> torch.Tensor:
        """The values in the window."""
        return self._shown(self._buffers[1])

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make the buffers for what is like these."""
        # Zeros: a masked column must hold a finite number, for nothing times infinity is NaN.
        self._buffers = [
            like.new_zeros(self._n_rows, like.shape[1], self._window.capacity, like.shape[3])
            for like in (key_states, value_states)
        ]
        self.is_initialized = True

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the tokens of this call behind the window; return window and these."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        n_new, window = key_states.shape[2], self._window
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[: window.n_rows, :, window.end : window.end + n_new] = new
        keys, values = (self._shown(buffer, n_new) for buffer in self._buffers)
        return keys, values

    def get_seq_length(self) -> int:
        """Columns before this call's, padding included."""
        return self._window.width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that `update` will return, and the first one's number."""
        return self._window.width + query_length, 0

    def get_max_length(self) -> int:
        """No limit of its own."""
        return -1

    def write(self, row: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put a row's keys and values, `[1, heads, n, width]`, into its last n columns."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        columns = slice(self._window.end - keys.shape[2], self._window.end)
        for buffer, new in zip(self._buffers, (keys, values), strict=True):
            buffer[row, :, columns] = new[0]

    def copy_row(self, source: int, target: int) -> None:
        """Make a row equal to another within the window."""
        columns = slice(self._window.start, self._window.end)
        for buffer in self._buffers:
            buffer[target, :, columns] = buffer[source, :, columns]

    def clear_row(self, row: int) -> None:
        """Zero all of a row."""
        for buffer in self._buffers:
            buffer[row].zero_()

    def move(self, start: int, capacity: int) -> None:
        """Bring the window's columns to `start`, in buffers of this many columns."""
        self._buffers = [self._moved(buffer, start, capacity) for buffer in self._buffers]

    def _shown(self, buffer: torch.Tensor, n_new: int = 0) -> torch.Tensor:
        window = self._window
        return buffer[: window.n_rows, :, window.start : window.end + n_new]

    def _moved(self, buffer: torch.Tensor, start: int, capacity: int) -> torch.Tensor:
        used = self._shown(buffer)
        n_rows, width = used.shape[0], used.shape[2]
        if capacity == buffer.shape[2]:
            used = used.clone()  # old and new place may overlap
        else:
            buffer = buffer.new_zeros(*buffer.shape[:2], capacity, buffer.shape[3])
        buffer[:n_rows, :, start : start + width] = used
        return buffer


@dataclass(eq=False, slots=True)
class Columns:
    """The buffers of all layers, for at most `max_rows` rows. Rows are numbered without gaps.

    `cache` is what a model of transformers, or a special one, writes to and reads. `lengths` are
    the columns that each row uses. After a forward pass over t tokens, call `commit(t)`.
    """

    max_rows: int
    lengths: list[int] = field(default_factory=list)
    window: Window = field(default_factory=Window)
    cache: Any = field(init=False)

    def __post_init__(self) -> None:
        self.cache = Cache(layer_class_to_replicate=lambda: Layer(self.max_rows, self.window))

    def join(self, content: KeysAndValues, length: int) -> int:
        """Add a row of `length` columns; return its number. Content may lack for none."""
        row = self.window.n_rows
        if row == self.max_rows:
            raise IndexError(f"all {self.max_rows} rows are taken")
        self._widen(length)
        self.window.n_rows += 1
        self.lengths.append(length)
        while len(self.cache.layers) < len(content):
            self.cache.layers.append(Layer(self.max_rows, self.window))
        for layer, (keys, values) in zip(self.cache.layers, content, strict=False):
            layer.write(row, keys, values)
        return row

    def leave(self, row: int, *, clear: bool = False) -> None:
        """Remove a row; the last one takes its number. `clear` wipes it out of the buffers."""
        last = self.window.n_rows - 1
        for layer in self.cache.layers:
            if row != last:
                layer.copy_row(last, row)
            if clear:
                layer.clear_row(last)
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        self.window.n_rows -= 1
        self.window.start = self.window.end - max(self.lengths, default=0)

    def reserve(self, n_tokens: int) -> None:
        """Make sure that so many columns can be appended."""
        window = self.window
        if window.end + n_tokens <= window.capacity:
            return
        needed = window.width + n_tokens
        capacity = window.capacity
        if needed + _MARGIN > capacity:
            capacity = needed + max(_MARGIN, needed // 4)
        self._move(0, capacity)

    def commit(self, n_tokens: int) -> None:
        """Count the columns that a forward pass appended."""
        self.window.end += n_tokens
        self.lengths = [length + n_tokens for length in self.lengths]

    def mask(self, n_tokens: int) -> torch.Tensor:
        """Which columns each row uses, with those to be appended: bool [rows, columns], on CPU."""
        width = self.window.width
        padding = width - torch.tensor(self.lengths)
        return torch.arange(width + n_tokens) >= padding[:, None]

    @property
    def has_padding(self) -> bool:
        """Tell whether any row is shorter than the window."""
        return min(self.lengths, default=0) < self.window.width

    def _widen(self, width: int) -> None:
        """Make the window at least `width` columns wide, to its left."""
        window = self.window
        if width > window.end:
            capacity = window.capacity
            if width + _MARGIN > capacity:
                capacity = width + max(_MARGIN, width // 4)
            self._move(width - window.width, capacity)
        window.start = min(window.start, window.end - width)

    def _move(self, start: int, capacity: int) -> None:
        for layer in self.cache.layers:
            layer.move(start, capacity)
        width = self.window.width
        self.window.start, self.window.end = start, start + width
        self.window.capacity = capacity
