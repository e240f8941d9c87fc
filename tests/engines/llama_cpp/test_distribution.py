"""What is drawn, against a reference in numpy, from rows of logits that are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from engines.llama_cpp.binding import Context, ContextParams, Model
from engines.llama_cpp.sampling import TokenSampler
from engines.types import SamplingParams

Floats = NDArray[np.float64]

N_DRAWS = 4000
PROMPT = np.array([20, 21], np.int32)
# Twelve candidates; what is far below them has a probability of 0 in single precision.
LOGITS = {20 + i: 3.0 - 0.37 * i for i in range(12)}


@pytest.fixture(scope="module")
def context(tiny_gguf: Path) -> Iterator[Context]:
    model = Model(str(tiny_gguf), n_gpu_layers=0, use_mmap=True, use_mlock=False)
    context = Context(model, ContextParams(1, 256, 16, n_threads=1))
    context.batch.tokens[:1] = 1
    context.batch.outputs[:1] = 1
    context.decode(1)
    yield context
    context.close()
    model.close()


def softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def reference(logits: Floats, params: SamplingParams) -> Floats:
    """The probabilities that the settings leave, each filter as its paper defines it."""
    probabilities = softmax(logits / params.temperature)
    keep = probabilities >= params.min_p * probabilities.max()
    if params.top_k:
        keep &= probabilities >= np.sort(probabilities)[-params.top_k]
    probabilities = renormalised(probabilities, keep)
    if params.typical_p < 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(probabilities)
            entropy = np.nansum(probabilities * surprise)
        order = np.argsort(np.abs(surprise - entropy))
        probabilities = first_mass(probabilities, order, params.typical_p)
    if params.top_p < 1:
        probabilities = first_mass(probabilities, np.argsort(-probabilities), params.top_p)
    return probabilities


def first_mass(probabilities: Floats, order: NDArray[np.intp], mass: float) -> Floats:
    """Keep as many in this order as it takes to have the mass."""
    n_kept = int(np.searchsorted(np.cumsum(probabilities[order]), mass)) + 1
    keep = np.zeros(len(probabilities), np.bool_)
    keep[order[:n_kept]] = True
    return renormalised(probabilities, keep)


def renormalised(probabilities: Floats, keep: NDArray[np.bool_]) -> Floats:
    kept = np.where(keep, probabilities, 0.0)
    return np.asarray(kept / kept.sum())


def written(context: Context) -> NDArray[np.float32]:
    """The context's row, with the known logits in it."""
    row: NDArray[np.float32] = context.logits(1)[0]
    row[:] = -1000.0
    row[list(LOGITS)] = list(LOGITS.values())
    return row


def check(context: Context, expected: Floats, params: SamplingParams) -> None:
    sampler = TokenSampler(params, 0, len(expected), PROMPT)
    sampler.adjust(context.logits(1)[0])
    assert sampler.chain is not None
    drawn = [sampler.chain.sample(context, 0) for _ in range(N_DRAWS)]
    sampler.close()
    frequencies = np.bincount(drawn, minlength=len(expected)) / N_DRAWS
    assert set(np.flatnonzero(frequencies)) == set(np.flatnonzero(expected > 1e-9))
    deviation = np.sqrt(expected * (1 - expected) / N_DRAWS)
    assert np.all(np.abs(frequencies - expected) <= 5 * deviation + 1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 1.7},
        {"top_k": 4},
        {"min_p": 0.2},
        {"top_p": 0.8},
        {"top_p": 0.0},
        {"typical_p": 0.5},
        {"typical_p": 0.9, "temperature": 0.5},
        {"top_k": 6, "temperature": 2.0, "min_p": 0.3},
        {"top_k": 5, "temperature": 0.7, "top_p": 0.7},
        {"min_p": 0.1, "typical_p": 0.7, "top_k": 8},
        {"temperature": 1.5, "min_p": 0.05, "top_k": 9, "typical_p": 0.8, "top_p": 0.9},
    ],
    ids=str,
)
def test_draws_follow_the_reference(context: Context, settings: dict[str, Any]) -> None:
    params = SamplingParams(seed=5, **settings)
    check(context, reference(written(context).astype(np.float64), params), params)


def test_bias_and_repetition_change_the_odds(context: Context) -> None:
    params = SamplingParams(seed=5, repetition_penalty=1.5, logit_bias=((25, 2.0), (22, -100.0)))
    logits = written(context).astype(np.float64)
    logits[25] += 2.0
    logits[22] -= 100.0
    logits[PROMPT] /= 1.5
    check(context, reference(logits, params), params)


def test_many_candidates_are_drawn_as_often_as_they_should(context: Context) -> None:
    row = context.logits(1)[0]
    row[:] = 0.01 * np.arange(len(row))
    for settings in ({"top_k": 40, "temperature": 3.0}, {"typical_p": 0.05}, {"top_p": 0.1}):
        params = SamplingParams(seed=5, **settings)  # type: ignore[arg-type]
        expected = reference(row.astype(np.float64), params)
        sampler = TokenSampler(params, 0, len(row), PROMPT)
        assert sampler.chain is not None
        drawn = {sampler.chain.sample(context, 0) for _ in range(N_DRAWS)}
        sampler.close()
        assert drawn == set(np.flatnonzero(expected).tolist())
