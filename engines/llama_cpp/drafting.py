"""Speculative decoding: guess the next tokens cheaply, and let one step confirm several.

The model computes the guessed tokens in the same step as the newest one; each is kept if the
sampler chooses just that token from the logits in front of it. So an answer is what it would be
without drafts, up to how llama.cpp rounds batches of another shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from engines.llama_cpp.slots import Slot, TokenArray


class Drafter(Protocol):
    """Guesses what comes next."""

    def propose(self, slots: Mapping[Slot, int]) -> dict[Slot, list[int]]:
        """Return guesses for generating slots, at most as many tokens as asked for each."""
        ...

    def close(self) -> None:
        """Free what it holds; safe to call twice."""
        ...


class PromptLookup:
    """Guesses that what followed the last few tokens before will follow them again.

    Good for answers that quote their prompt: edits, summaries, code. After "Prompt Lookup
    Decoding" (Saxena 2023), which llama.cpp and vLLM (`ngram`) have too: of the earlier places
    where the last `longest` tokens (else fewer, down to `shortest`) stand, the latest counts.
    """

    def __init__(self, longest: int = 3, shortest: int = 2) -> None:
        self._sizes = range(longest, shortest - 1, -1)

    def propose(self, slots: Mapping[Slot, int]) -> dict[Slot, list[int]]:
        """Return guesses; none where nothing repeats."""
        return {
            slot: self.continuation(slot.tokens[: slot.length], count)
            for slot, count in slots.items()
        }

    def close(self) -> None:
        """Nothing is held."""

    def continuation(self, tokens: TokenArray, count: int) -> list[int]:
        """Return up to `count` tokens that followed the end of `tokens` when it stood earlier."""
        for size in self._sizes:
            start = _last_place(tokens, size)
            if start is not None:
                return [int(token) for token in tokens[start + size : start + size + count]]
        return []


def _last_place(tokens: TokenArray, size: int) -> int | None:
    """Return where the last `size` tokens stand earlier for the last time; None if nowhere."""
    n_places = len(tokens) - size
    if n_places < 1:
        return None
    found = np.ones(n_places, np.bool_)
    for offset in range(size):
        found &= tokens[offset : offset + n_places] == tokens[n_places + offset]
    places = np.flatnonzero(found)
    return int(places[-1]) if places.size else None
