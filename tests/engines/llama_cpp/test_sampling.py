from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from engines.decoding.sampling_checks import check_sampling
from engines.errors import InvalidParameter
from engines.llama_cpp import sampling
from engines.llama_cpp.sampling import TokenSampler
from engines.types import SamplingParams

GREEDY = SamplingParams(temperature=0.0)
PROMPT = np.array([0, 1], np.int32)
ROW = [2.0, -2.0, 1.0, 0.0]


def adjusted(
    params: SamplingParams, accepted: tuple[int, ...] = (), barred: tuple[int, ...] = ()
) -> NDArray[np.float32]:
    sampler = TokenSampler(params, 0, 4, PROMPT, barred)
    for token in accepted:
        sampler.accept(token)
    row = np.array(ROW, np.float32)
    sampler.adjust(row)
    sampler.close()
    return row


def test_nothing_is_adjusted_unless_asked() -> None:
    assert adjusted(GREEDY, (2, 2), barred=(3,)).tolist() == ROW


def test_logit_bias_is_added() -> None:
    row = adjusted(replace(GREEDY, logit_bias=((1, 3.5), (3, -100.0))))
    assert row.tolist() == [2.0, 1.5, 1.0, -100.0]


def test_presence_counts_a_generated_token_once_and_frequency_each_time() -> None:
    presence = adjusted(replace(GREEDY, presence_penalty=0.5), (2, 2))
    frequency = adjusted(replace(GREEDY, frequency_penalty=0.5), (2, 2))
    assert presence.tolist() == [2.0, -2.0, 0.5, 0.0]
    assert frequency.tolist() == [2.0, -2.0, 0.0, 0.0]


def test_repetition_looks_at_the_prompt_too_and_always_makes_less_likely() -> None:
    assert adjusted(replace(GREEDY, repetition_penalty=2.0), (2,)).tolist() == [1.0, -4.0, 0.5, 0.0]


def test_end_tokens_are_barred_until_min_tokens() -> None:
    params = replace(GREEDY, min_tokens=2, logit_bias=((3, 100.0),))
    assert adjusted(params, (0,), barred=(3,))[3] == -np.inf
    assert adjusted(params, (0, 0), barred=(3,))[3] == 100.0


@pytest.mark.parametrize("temperature", [0.0, 1e-9])
def test_a_temperature_too_low_to_divide_by_is_greedy(temperature: float) -> None:
    sampler = TokenSampler(SamplingParams(temperature=temperature), 0, 4, PROMPT)
    assert sampler.chain is None


def test_seeds_count_up_with_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(sampling, "SamplerChain", lambda **options: seeds.append(options["seed"]))
    for index, seed in ((0, 5), (1, 5), (0, 2**32 - 1), (0, -1), (0, 2**63 - 1)):
        TokenSampler(SamplingParams(seed=seed), index, 4, PROMPT)
    assert seeds[:2] == [5, 6]
    # llama.cpp takes 0xFFFFFFFF for "random".
    assert all(0 <= seed < 0xFFFFFFFF for seed in seeds)


def test_without_a_seed_each_request_draws_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: set[int] = set()
    monkeypatch.setattr(sampling, "SamplerChain", lambda **options: seeds.add(options["seed"]))
    for _ in range(5):
        TokenSampler(SamplingParams(), 0, 4, PROMPT)
    assert len(seeds) == 5


@pytest.mark.parametrize("token", [-1, 4, 2**40])
def test_token_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(InvalidParameter, match="0 to 3") as caught:
        check_sampling(SamplingParams(logit_bias=((0, 1.0), (token, 1.0))), 4)
    assert caught.value.param == "logit_bias"
    with pytest.raises(InvalidParameter, match="0 to 3") as caught:
        check_sampling(SamplingParams(stop_token_ids=(token,)), 4)
    assert caught.value.param == "stop_token_ids"


def test_a_repetition_penalty_of_zero_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="above 0"):
        check_sampling(SamplingParams(repetition_penalty=0.0), 4)
