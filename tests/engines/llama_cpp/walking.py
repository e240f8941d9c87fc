"""Follow a constraint with tokens drawn blindly from those it allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from engines.llama_cpp.binding import Vocabulary
    from engines.llama_cpp.constraints import CompiledConstraint


@dataclass(frozen=True)
class Walk:
    """What came of a walk: `is_whole` unless it was cut short, or failed."""

    text: str
    is_whole: bool


def walk(
    compiled: CompiledConstraint, vocabulary: Vocabulary, seed: int, n_steps: int = 400
) -> Walk:
    """Draw allowed tokens; end where that is allowed, at even odds."""
    state = compiled.start(vocabulary.end_tokens)
    random = np.random.default_rng(seed)
    text = b""
    for _ in range(n_steps):
        row = np.zeros(vocabulary.n_tokens, np.float32)
        state.restrict(row)
        if state.error is not None:
            break
        allowed = np.flatnonzero(row == 0).tolist()
        ends = vocabulary.end_tokens.intersection(allowed)
        assert ends in (frozenset(), vocabulary.end_tokens)
        if ends and (len(allowed) == len(ends) or random.random() < 0.5):
            return Walk(text.decode(), True)
        token = int(random.choice([token for token in allowed if token not in ends]))
        state.accept(token)
        text += vocabulary.pieces[token]
        if state.is_complete:
            return Walk(text.decode(), True)
    return Walk(text.decode("utf-8", "ignore"), False)


def accepts(compiled: CompiledConstraint, vocabulary: Vocabulary, text: str) -> bool:
    """Tell whether a text, spelled in bytes, satisfies a constraint."""
    state = compiled.start(vocabulary.end_tokens)
    for byte in text.encode():
        state.accept(vocabulary.pieces.index(bytes([byte])))
        if state.error is not None:
            return False
    row = np.zeros(vocabulary.n_tokens, np.float32)
    state.restrict(row)
    return bool(np.all(row[list(vocabulary.end_tokens)] == 0))
