"""How one choice picks its tokens from rows of logits.

The order is vLLM's, so that engines agree: tokens that the constraint does not allow, those
barred by `min_tokens`, `logit_bias`, penalties, then temperature, min_p, top_k, typical_p (which
vLLM has not), top_p and the draw. The first four are written into the row, the others are a
llama.cpp sampler chain; at temperature 0 the largest logit wins.

`presence_penalty` and `frequency_penalty` count the tokens generated so far, as OpenAI defines
them. `repetition_penalty` also looks at the prompt, as transformers and vLLM do.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from engines.decoding.sampling_checks import is_greedy
from engines.errors import InvalidParameter
from engines.llama_cpp.binding import SamplerChain
from engines.llama_cpp.constraints import ConstraintState
from engines.types import SamplingParams

Row = NDArray[np.float32]

# 0xFFFFFFFF asks llama.cpp for a random seed.
_SEEDS = 0xFFFFFFFF


class TokenSampler:
    """The sampling state of one choice; `close` frees it.

    `chain` draws from a row that `adjust` has seen; None says that the row's largest logit is
    the choice, which whoever has all rows finds at once. `barred` tokens cannot be chosen for
    the first `min_tokens` tokens, unless the `constraint` leaves nothing else.
    """

    def __init__(
        self,
        params: SamplingParams,
        index: int,
        n_vocab: int,
        prompt: NDArray[np.int32],
        barred: Collection[int] = (),
        constraint: ConstraintState | None = None,
    ) -> None:
        self._n_generated = 0
        self._min_tokens = params.min_tokens
        self._barred = np.fromiter(barred, np.intp)
        self._constraint = constraint
        self._bias_ids, self._biases = _bias_arrays(params.logit_bias)
        self._penalties = Penalties.build(params, n_vocab, prompt)
        self.chain = None if is_greedy(params) else _build_chain(params, index)

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow, because the constraint is satisfied and lets no more be."""
        return self._constraint is not None and self._constraint.is_complete

    @property
    def error(self) -> InvalidParameter | None:
        """Why the constraint cannot be followed any further; None as long as it can."""
        return self._constraint.error if self._constraint is not None else None

    def adjust(self, row: Row) -> None:
        """Write what changes the logits into the row."""
        must_end = False
        if self._constraint is not None:
            self._constraint.restrict(row)
            must_end = self._constraint.allows_only_end
        if self._n_generated < self._min_tokens and not must_end:
            row[self._barred] = -np.inf
        if self._bias_ids.size:
            row[self._bias_ids] += self._biases
        if self._penalties is not None:
            self._penalties.apply(row)

    def accept(self, token: int) -> None:
        """Note the token that was chosen."""
        self._n_generated += 1
        if self._penalties is not None:
            self._penalties.count(token)
        if self._constraint is not None:
            self._constraint.accept(token)

    def close(self) -> None:
        """Free the chain and the constraint's state; safe to call twice."""
        self._constraint = None
        if self.chain is not None:
            self.chain.close()


class Penalties:
    """The penalties of one choice, and the tokens they count."""

    def __init__(self, params: SamplingParams, n_vocab: int, prompt: NDArray[np.int32]) -> None:
        self._presence = params.presence_penalty
        self._frequency = params.frequency_penalty
        self._repetition = params.repetition_penalty
        self._counts = np.zeros(n_vocab, np.float32)
        self._seen = np.zeros(n_vocab, np.bool_)
        self._seen[prompt] = True

    @classmethod
    def build(
        cls, params: SamplingParams, n_vocab: int, prompt: NDArray[np.int32]
    ) -> Penalties | None:
        """Return the penalties; None when all are off."""
        if params.repetition_penalty == 1.0 and not (
            params.presence_penalty or params.frequency_penalty
        ):
            return None
        return cls(params, n_vocab, prompt)

    def apply(self, row: Row) -> None:
        """Write the penalties into a row of logits."""
        if self._repetition != 1.0:
            ids = np.flatnonzero(self._seen)
            logits = row[ids]
            # Towards less likely whatever the sign (CTRL paper, arXiv 1909.05858, section 4.1).
            row[ids] = np.where(logits > 0, logits / self._repetition, logits * self._repetition)
        if self._presence or self._frequency:
            ids = np.flatnonzero(self._counts)
            row[ids] -= self._counts[ids] * self._frequency + self._presence

    def count(self, token: int) -> None:
        """Note a generated token."""
        self._counts[token] += 1
        self._seen[token] = True


def _build_chain(params: SamplingParams, index: int) -> SamplerChain:
    """Build the chain of choice `index`; without a seed it draws at random."""
    seed = secrets.randbelow(_SEEDS) if params.seed is None else (params.seed + index) % _SEEDS
    return SamplerChain(
        temperature=params.temperature,
        min_p=params.min_p,
        top_k=params.top_k,
        typical_p=params.typical_p,
        top_p=params.top_p,
        seed=seed,
    )


def _bias_arrays(
    pairs: tuple[tuple[int, float], ...],
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return ids and biases; the last of several for one id counts."""
    biases = dict(pairs)
    return np.fromiter(biases.keys(), np.intp), np.fromiter(biases.values(), np.float32)
