"""Slots: what the model's memory (KV cache) holds, and where a prompt finds its beginning.

A *slot* is one sequence of the memory. A *sequence* is one choice of one request; it runs in a
slot, and what it computed stays there until another sequence needs the room.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TokenArray = NDArray[np.int32]

# Copying moves all that the source holds, through the processor's memory, at a few hundredths of
# the cost of computing as much (200 M parameters: 4 us a token against 1.2 ms).
_COPIED_PER_COMPUTED = 64


@dataclass(eq=False, slots=True)
class Slot:
    """One sequence of the model's memory, and the tokens that are or will be in it.

    Of `tokens` the first `length` are known and the first `cached` are computed; behind them
    stand `n_drafted` tokens that were guessed.
    """

    id: int
    tokens: TokenArray
    length: int = 0
    cached: int = 0
    n_drafted: int = 0
    sequence: Sequence | None = None
    last_used: int = 0

    def shared_with(self, prompt: TokenArray) -> int:
        """Return how many leading tokens of `prompt` are known here; the last never counts."""
        limit = min(self.length, len(prompt) - 1)
        differs = self.tokens[:limit] != prompt[:limit]
        return int(differs.argmax()) if differs.any() else limit


@dataclass(eq=False, slots=True)
class Sequence:
    """One choice of one request.

    It may grow to `max_length` tokens, its prompt included (0: to the end of the slot). A lower
    `priority` is served first. One that `needs_logits` of all its prompt cannot use a prefix that
    was computed before. `reused` counts the prompt tokens that were in memory when it began.
    """

    request_id: str
    prompt: TokenArray
    max_length: int = 0
    priority: int = 0
    needs_logits: bool = False
    slot: Slot | None = None
    reused: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first `length` tokens of a prompt, in the slot that has or will have computed them."""

    slot: Slot
    length: int

    @property
    def is_computed(self) -> bool:
        """Tell whether it could be copied now."""
        return self.slot.cached >= self.length


@dataclass(frozen=True, slots=True)
class Sharing:
    """Which prefixes are worth sharing.

    `min_copied` is the shortest, in tokens, to copy. A memory that is not `can_cut` (recurrent
    models) gives only the whole of what a slot holds.
    """

    min_copied: int = 16
    can_cut: bool = True

    def offered(self, slot: Slot, prompt: TokenArray) -> int:
        """Return how many leading tokens of a prompt a slot can provide, now or later."""
        shared = slot.shared_with(prompt)
        if self.can_cut:
            return shared
        # Without cutting, a prefix can be taken only at the moment when there is nothing else.
        running = slot.sequence
        whole = slot.cached if running is None else len(running.prompt) - 1
        return shared if shared == whole >= slot.cached else 0

    def is_worth_copying(self, prefix: Prefix, held: int) -> bool:
        """Tell whether copying beats computing, for a slot that holds `held` tokens already."""
        gain = prefix.length - held
        return gain >= max(self.min_copied, prefix.slot.length // _COPIED_PER_COMPUTED, 1)

    def best(self, slots: Iterable[Slot], prompt: TokenArray) -> Prefix | None:
        """Return the longest prefix that a slot offers; of equals a computed one, the oldest."""
        offers = (Prefix(slot, self.offered(slot, prompt)) for slot in slots)
        return max(offers, key=_preference, default=None)


def _preference(prefix: Prefix) -> tuple[int, bool, bool, int]:
    slot = prefix.slot
    return prefix.length, prefix.is_computed, slot.sequence is None, -slot.last_used
