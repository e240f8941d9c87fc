"""A prompt on its way into memory, in pieces or whole.

A prompt's last token is not part of its prefill: it is decoded in the batch, as the generated
ones are. So the prefill needs no logits, and the choices of a request share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from transformers.cache_utils import DynamicCache

from engines.transformers.batch import Prefilled
from engines.transformers.columns import KeysAndValues

ComputeChunk = Callable[[Any, Sequence[int], int], None]
"""`(cache, tokens, start)`: add keys and values of the tokens, the first of which is at start."""


class Prefill(Protocol):
    """A prompt on its way into memory."""

    @property
    def n_left(self) -> int:
        """Tokens still to be computed."""
        ...

    def advance(self, n_tokens: int) -> int:
        """Compute at most `n_tokens` more, or all where only all will do; return how many."""
        ...

    def finish(self) -> Prefilled:
        """Return what there is in memory, once nothing is left."""
        ...


class ChunkedPrefill:
    """A prompt that is computed from its beginning, in pieces unless `is_whole`; see `Prefill`."""

    def __init__(
        self, prompt: Sequence[int], compute: ComputeChunk, *, is_whole: bool = False
    ) -> None:
        self._prompt = prompt
        self._compute = compute
        self._is_whole = is_whole
        self._cache = DynamicCache()
        self._n_done = 0

    @property
    def n_left(self) -> int:
        """Tokens still to be computed; the last of the prompt is none of them."""
        return len(self._prompt) - 1 - self._n_done

    def advance(self, n_tokens: int) -> int:
        """Compute the next tokens."""
        n_tokens = self.n_left if self._is_whole else min(n_tokens, self.n_left)
        if n_tokens:
            stop = self._n_done + n_tokens
            self._compute(self._cache, self._prompt[self._n_done : stop], self._n_done)
            self._n_done = stop
        return n_tokens

    def finish(self) -> Prefilled:
        """Return the keys and values."""
        return Prefilled(
            prompt_length=len(self._prompt),
            first_token=self._prompt[-1],
            length=self._n_done,
            own=contents(self._cache),
        )


class WholePrefill:
    """A prompt that is computed in one piece; see `Prefill`."""

    def __init__(self, n_tokens: int, compute: Callable[[], Prefilled]) -> None:
        self._compute = compute
        self._prefilled: Prefilled | None = None
        self.n_left = n_tokens

    def advance(self, n_tokens: int) -> int:  # noqa: ARG002 - all or nothing
        """Compute all of it."""
        self._prefilled = self._compute()
        n_done, self.n_left = self.n_left, 0
        return n_done

    def finish(self) -> Prefilled:
        """Return what the encoder left."""
        if self._prefilled is None:
            raise RuntimeError("the prompt is not computed yet")
        return self._prefilled


def contents(cache: Any) -> KeysAndValues:
    """Return the keys and values of a cache of transformers."""
    return [(layer.keys, layer.values) for layer in cache.layers if layer.is_initialized]
