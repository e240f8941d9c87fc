"""The sequences that decode together, and what their next step needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from engines.transformers.columns import Columns, KeysAndValues


@dataclass(frozen=True, slots=True)
class Prefilled:
    """What a prompt has left in memory, and the token that decodes first.

    `own` are keys and values of the sequence itself, `length` tokens; `crossed` those of an
    encoder's output, `crossed_length` tokens. `prompt_length` counts all of the prompt's tokens.
    """

    prompt_length: int
    first_token: int
    length: int
    own: KeysAndValues = ()
    crossed_length: int = 0
    crossed: KeysAndValues = ()


@dataclass(eq=False, slots=True)
class Row:
    """One sequence in the batch. `index` is its row now; `token` decodes next."""

    index: int
    prompt_length: int
    length: int
    token: int


class Decoder(Protocol):
    """A model's way to decode one token of every row."""

    def decode(
        self, tokens: torch.Tensor, rows: list[Row], own: Columns, crossed: Columns
    ) -> torch.Tensor:
        """Return the logits [rows, vocabulary] after `tokens` [rows, 1], on the model's device.

        It writes one column; room for it is reserved.
        """
        ...


@dataclass(eq=False, slots=True)
class Batch:
    """At most `max_rows` sequences that decode together; they come and go at any step."""

    decoder: Decoder
    max_rows: int
    rows: list[Row] = field(default_factory=list)
    _own: Columns = field(init=False)
    _crossed: Columns = field(init=False)

    def __post_init__(self) -> None:
        self.clear()

    @property
    def n_free(self) -> int:
        """Rows that may still join."""
        return self.max_rows - len(self.rows)

    def join(self, prefilled: Prefilled) -> Row:
        """Add a sequence; the same prompt may be added several times."""
        index = self._own.join(prefilled.own, prefilled.length)
        self._crossed.join(prefilled.crossed, prefilled.crossed_length)
        row = Row(index, prefilled.prompt_length, prefilled.length, prefilled.first_token)
        self.rows.append(row)
        return row

    def leave(self, row: Row, *, clear: bool = False) -> None:
        """Remove a sequence. `clear` wipes its numbers out, should they be infinite."""
        # Also from outside of a step: what was made in inference mode can only be changed in it.
        with torch.inference_mode():
            self._own.leave(row.index, clear=clear)
            self._crossed.leave(row.index, clear=clear)
        last = self.rows.pop()
        if last is not row:
            self.rows[row.index] = last
            last.index = row.index

    def step(self) -> torch.Tensor:
        """Decode every row's token; return the logits [rows, vocabulary] as float32 on CPU.

        Row i of them belongs to `rows[i]`, whose `token` must be set before the next step.
        """
        tokens = torch.tensor([[row.token] for row in self.rows])
        self._own.reserve(1)
        logits = self.decoder.decode(tokens, self.rows, self._own, self._crossed)
        self._own.commit(1)
        for row in self.rows:
            row.length += 1
        return logits.float().cpu()

    def clear(self) -> None:
        """Drop all sequences and free their memory."""
        self.rows.clear()
        self._own = Columns(self.max_rows)
        self._crossed = Columns(self.max_rows)
