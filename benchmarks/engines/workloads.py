"""What is asked of every peer: how many prompts at once, how long, and what they have in common.

A prompt of n tokens is BOS, which the server adds, and n - 1 words of one token each
(`random_gguf.words`). Prompts come from a seed: every peer gets the same, no wave gets those of
an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.engines.random_gguf import words

_WORDS = words()


class Workload(Protocol):
    """A kind of wave, or of several waves one after another that belong together."""

    @property
    def name(self) -> str:
        """The workload's name in tables."""
        ...

    @property
    def streams(self) -> int:
        """Requests at once."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Tokens of each prompt."""
        ...

    def waves(self, seed: Sequence[int]) -> Iterator[tuple[str, list[str]]]:
        """Yield, for each wave, the part of the workload it measures (often empty) and prompts."""
        ...


@dataclass(frozen=True, slots=True)
class Unlike:
    """Prompts that have nothing in common."""

    streams: int
    prompt_tokens: int

    @property
    def name(self) -> str:
        """The workload's name in tables."""
        return f"{self.prompt_tokens}-token prompts"

    def waves(self, seed: Sequence[int]) -> Iterator[tuple[str, list[str]]]:
        """Yield one wave."""
        rng = np.random.default_rng([*seed, self.streams, self.prompt_tokens])
        yield "", [text(rng, self.prompt_tokens - 1) for _ in range(self.streams)]


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Prompts that begin alike and end differently: first a new prefix, then the same again."""

    streams: int
    prefix_tokens: int
    tail_tokens: int

    @property
    def name(self) -> str:
        """The workload's name in tables."""
        return f"{self.prefix_tokens} shared + {self.tail_tokens} own tokens"

    @property
    def prompt_tokens(self) -> int:
        """Tokens of each prompt."""
        return self.prefix_tokens + self.tail_tokens

    def waves(self, seed: Sequence[int]) -> Iterator[tuple[str, list[str]]]:
        """Yield a cold wave and a warm one."""
        rng = np.random.default_rng([*seed, self.streams, self.prompt_tokens, self.prefix_tokens])
        prefix = text(rng, self.prefix_tokens - 1)
        for part in ("cold", "warm"):
            yield part, [prefix + text(rng, self.tail_tokens) for _ in range(self.streams)]


def text(rng: np.random.Generator, tokens: int) -> str:
    """Return so many words, which are as many tokens."""
    return "".join(_WORDS[number] for number in rng.integers(len(_WORDS), size=tokens))
