from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import torch

from engines.decoding.sampling_checks import check_sampling
from engines.errors import InvalidParameter
from engines.transformers import sampling
from engines.transformers.sampling import TokenSampler
from engines.types import SamplingParams

GREEDY = SamplingParams(temperature=0.0)
PROMPT = (0, 1)
ROW = [2.0, -2.0, 1.0, 0.0]
DRAWS = 4000


def adjusted(
    params: SamplingParams, accepted: tuple[int, ...] = (), barred: tuple[int, ...] = ()
) -> list[float]:
    sampler = TokenSampler(params, 0, 4, PROMPT, barred)
    for token in accepted:
        sampler.accept(token)
    row = torch.tensor(ROW)
    sampler.adjust(row)
    numbers: list[float] = row.tolist()
    return numbers


def shares(params: SamplingParams, row: list[float]) -> dict[int, float]:
    """How often each token is drawn."""
    sampler = TokenSampler(replace(params, seed=1), 0, len(row), ())
    drawn = Counter(sampler.choose(torch.tensor(row)) for _ in range(DRAWS))
    return {token: count / DRAWS for token, count in drawn.items()}


def test_nothing_is_adjusted_unless_asked() -> None:
    assert adjusted(GREEDY, (2, 2), barred=(3,)) == ROW


def test_logit_bias_is_added() -> None:
    row = adjusted(replace(GREEDY, logit_bias=((1, 3.5), (3, 5.0), (3, -100.0))))
    assert row == [2.0, 1.5, 1.0, -100.0]


def test_presence_counts_a_generated_token_once_and_frequency_each_time() -> None:
    presence = adjusted(replace(GREEDY, presence_penalty=0.5), (2, 2))
    frequency = adjusted(replace(GREEDY, frequency_penalty=0.5), (2, 2))
    assert presence == [2.0, -2.0, 0.5, 0.0]
    assert frequency == [2.0, -2.0, 0.0, 0.0]


def test_repetition_looks_at_the_prompt_too_and_always_makes_less_likely() -> None:
    assert adjusted(replace(GREEDY, repetition_penalty=2.0), (2,)) == [1.0, -4.0, 0.5, 0.0]


def test_end_tokens_are_barred_until_min_tokens() -> None:
    params = replace(GREEDY, min_tokens=2, logit_bias=((3, 100.0),))
    assert adjusted(params, (0,), barred=(3,))[3] == -torch.inf
    assert adjusted(params, (0, 0), barred=(3,))[3] == 100.0


@pytest.mark.parametrize(
    "params", [GREEDY, SamplingParams(temperature=1e-9), SamplingParams(top_k=1)]
)
def test_greedy_takes_the_largest(params: SamplingParams) -> None:
    assert TokenSampler(params, 0, 4, ()).choose(torch.tensor([0.0, 3.0, 3.1, -1.0])) == 2


def test_draws_follow_the_probabilities() -> None:
    row = torch.tensor([0.1, 0.2, 0.7]).log().tolist()
    found = shares(SamplingParams(), row)
    assert found == pytest.approx({0: 0.1, 1: 0.2, 2: 0.7}, abs=0.03)


def test_temperature_sharpens_before_the_others_cut() -> None:
    row = torch.tensor([0.25, 0.75]).log().tolist()
    # At 0.5 the ratio is squared: 1 to 9.
    assert shares(SamplingParams(temperature=0.5), row)[1] == pytest.approx(0.9, abs=0.02)
    # Only then is a tenth of the likeliest too little for min_p, and nine tenths enough.
    assert set(shares(SamplingParams(temperature=0.5, min_p=0.2), row)) == {1}
    assert set(shares(SamplingParams(temperature=0.5, top_p=0.85), row)) == {1}


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        (SamplingParams(min_p=0.4), {0, 1, 2}),
        (SamplingParams(min_p=0.6), {0, 1}),
        (SamplingParams(min_p=1.0), {0}),
        (SamplingParams(top_k=2), {0, 1}),
        (SamplingParams(top_k=99), {0, 1, 2, 3}),
        (SamplingParams(top_p=0.39), {0}),
        (SamplingParams(top_p=0.41), {0, 1}),
        (SamplingParams(top_p=0.91), {0, 1, 2, 3}),
        (SamplingParams(top_p=0.0), {0}),
        # Of what top_k leaves, four sevenths are the first's.
        (SamplingParams(top_k=2, top_p=0.57), {0}),
        (SamplingParams(top_k=2, top_p=0.58), {0, 1}),
        (SamplingParams(min_p=0.6, top_p=0.57), {0}),
    ],
)
def test_what_each_cut_keeps(params: SamplingParams, kept: set[int]) -> None:
    row = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().tolist()
    assert set(shares(params, row)) == kept


@pytest.mark.parametrize(
    ("chances", "typical_p", "kept"),
    [
        # Entropy 0.90 nats: 0.3 says 1.20, 0.6 says 0.51, 0.1 says 2.30.
        ([0.6, 0.3, 0.1], 0.2, [1]),
        ([0.6, 0.3, 0.1], 0.31, [1, 0]),
        ([0.6, 0.3, 0.1], 0.95, [1, 0, 2]),
        ([1.0, 0.0], 0.5, [0]),
    ],
)
def test_typical_p_keeps_what_says_about_as_much_as_expected(
    chances: list[float], typical_p: float, kept: list[int]
) -> None:
    assert sampling._typical(torch.tensor(chances).log(), typical_p).tolist() == kept


def test_top_p_may_need_more_than_the_likeliest_few() -> None:
    found = shares(SamplingParams(top_p=0.999), [0.0] * 1000)
    assert len(found) > 900


def test_a_seed_repeats_and_choices_count_up() -> None:
    row = torch.zeros(1000)

    def draws(params: SamplingParams, index: int = 0) -> list[int]:
        sampler = TokenSampler(params, index, 1000, ())
        return [sampler.choose(row) for _ in range(5)]

    assert draws(SamplingParams(seed=5)) == draws(SamplingParams(seed=5))
    assert draws(SamplingParams(seed=5), 1) == draws(SamplingParams(seed=6))
    assert draws(SamplingParams(seed=5)) != draws(SamplingParams(seed=6))
    assert draws(SamplingParams()) != draws(SamplingParams())
    for seed in (-1, 2**63 - 1, 2**64):
        assert draws(SamplingParams(seed=seed), 1)


@pytest.mark.parametrize("token", [-1, 4, 2**40])
def test_token_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(InvalidParameter, match="0 to 3") as caught:
        check_sampling(SamplingParams(logit_bias=((0, 1.0), (token, 1.0))), 4)
    assert caught.value.param == "logit_bias"
    with pytest.raises(InvalidParameter, match="0 to 3") as caught:
        check_sampling(SamplingParams(stop_token_ids=(token,)), 4)
    assert caught.value.param == "stop_token_ids"
