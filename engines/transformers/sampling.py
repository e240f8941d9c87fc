"""How one choice picks its tokens from rows of logits, with torch.

The order is vLLM's, so that engines agree: tokens barred by `min_tokens`, `logit_bias`,
penalties, then temperature, min_p, top_k, typical_p (which vLLM has not), top_p and the draw; at
temperature 0 the largest logit wins. A draw depends on the row, the seed and the number of draws
before, never on the batch.

`presence_penalty` and `frequency_penalty` count the tokens generated so far, as OpenAI defines
them. `repetition_penalty` also looks at the prompt, as transformers and vLLM do.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Sequence

import torch

from engines.decoding.sampling_checks import is_greedy
from engines.types import SamplingParams

# Sorting a whole vocabulary takes milliseconds: so many of the likeliest nearly always suffice
# for top_p.
_LIKELIEST = 256
_SEEDS = 2**63


class TokenSampler:
    """The sampling state of one choice.

    `adjust` a row of logits, float32 on CPU, then `choose` from it and `accept` what was chosen.
    `barred` tokens cannot be chosen for the first `min_tokens` tokens.
    """

    def __init__(
        self,
        params: SamplingParams,
        index: int,
        n_vocab: int,
        prompt: Sequence[int],
        barred: Collection[int] = (),
    ) -> None:
        self._params = params
        self._n_generated = 0
        self._barred = torch.tensor(sorted(barred), dtype=torch.long)
        biases = dict(params.logit_bias)  # the last of several for one id counts
        self._bias_ids = torch.tensor(list(biases), dtype=torch.long)
        self._biases = torch.tensor(list(biases.values()), dtype=torch.float32)
        self._penalties = Penalties(params, n_vocab, prompt) if has_penalties(params) else None
        self._generator = None if is_greedy(params) else _generator(params.seed, index)

    def adjust(self, row: torch.Tensor) -> None:
        """Write what changes the logits into the row."""
        if self._n_generated < self._params.min_tokens:
            row[self._barred] = -torch.inf
        if len(self._bias_ids):
            row[self._bias_ids] += self._biases
        if self._penalties is not None:
            self._penalties.apply(row)

    def choose(self, row: torch.Tensor) -> int:
        """Return the next token, from a row that `adjust` has seen."""
        if self._generator is None:
            return int(row.argmax())
        logits, ids = _kept(row / self._params.temperature, self._params)
        drawn = int(torch.multinomial(logits.softmax(-1), 1, generator=self._generator))
        return drawn if ids is None else int(ids[drawn])

    def accept(self, token: int) -> None:
        """Note the token that was chosen."""
        self._n_generated += 1
        if self._penalties is not None:
            self._penalties.count(token)


class Penalties:
    """The penalties of one choice, and the tokens they count."""

    def __init__(self, params: SamplingParams, n_vocab: int, prompt: Sequence[int]) -> None:
        self._presence = params.presence_penalty
        self._frequency = params.frequency_penalty
        self._repetition = params.repetition_penalty
        self._counts = torch.zeros(n_vocab)
        self._seen = torch.zeros(n_vocab, dtype=torch.bool)
        self._seen[torch.tensor([t for t in prompt if t < n_vocab], dtype=torch.long)] = True

    def apply(self, row: torch.Tensor) -> None:
        """Write the penalties into a row of logits."""
        if self._repetition != 1.0:
            ids = self._seen.nonzero()[:, 0]
            logits = row[ids]
            # Towards less likely whatever the sign (CTRL paper, arXiv 1909.05858, section 4.1).
            divided, multiplied = logits / self._repetition, logits * self._repetition
            row[ids] = torch.where(logits > 0, divided, multiplied)
        if self._presence or self._frequency:
            ids = self._counts.nonzero()[:, 0]
            row[ids] -= self._counts[ids] * self._frequency + self._presence

    def count(self, token: int) -> None:
        """Note a generated token."""
        self._counts[token] += 1
        self._seen[token] = True


def has_penalties(params: SamplingParams) -> bool:
    """Tell whether any penalty is on."""
    additive = params.presence_penalty or params.frequency_penalty
    return bool(additive) or params.repetition_penalty != 1.0


def _generator(seed: int | None, index: int) -> torch.Generator:
    """Return the source of a choice's draws; without a seed they are random."""
    generator = torch.Generator()
    drawn = secrets.randbelow(_SEEDS) if seed is None else (seed + index) % _SEEDS
    return generator.manual_seed(drawn)


def _kept(row: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what the cuts leave of logits, and of which tokens that is (None: all)."""
    ids: torch.Tensor | None = None
    if params.min_p > 0.0:
        # In terms of logits, p < min_p * p_max is a distance to the largest.
        limit = row.max() + math.log(params.min_p)
        ids = (row >= limit).nonzero()[:, 0]
        row = row[ids]
    if 0 < params.top_k < len(row):
        row, order = row.topk(params.top_k)
        ids = order if ids is None else ids[order]
    typical_p = params.typical_p
    if typical_p < 1.0:
        order = _typical(row, typical_p)
        row, ids = row[order], order if ids is None else ids[order]
    if params.top_p < 1.0:
        row, order = _nucleus(row, params.top_p)
        ids = order if ids is None else ids[order]
    return row, ids


def _typical(row: torch.Tensor, typical_p: float) -> torch.Tensor:
    """Return the places of the logits whose information is nearest to the expected.

    As many as it takes for their probabilities to reach `typical_p` (locally typical sampling,
    arXiv 2202.00666, section 5).
    """
    logprobs = row.log_softmax(-1)
    probabilities = logprobs.exp()
    distance = (-logprobs - torch.special.entr(probabilities).sum()).abs()
    order = distance.argsort(stable=True)
    sums = probabilities[order].cumsum(-1)
    return order[: int((sums < typical_p).sum()) + 1]


def _nucleus(row: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the fewest likeliest logits whose probabilities reach `top_p`, and their places."""
    total = row.logsumexp(-1)
    for n_likeliest in (min(_LIKELIEST, len(row)), len(row)):
        likeliest, order = row.topk(n_likeliest)
        sums = (likeliest - total).exp().cumsum(-1)
        # Those that do not reach it yet, and the one that does.
        n_kept = int((sums < top_p).sum()) + 1
        if n_kept <= n_likeliest:
            return likeliest[:n_kept], order[:n_kept]
    return likeliest, order
