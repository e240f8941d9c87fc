"""Sequences in a batch, of every promised architecture, against each of them alone."""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import torch

from engines.transformers.batch import Batch, Prefilled, Row
from engines.transformers.models import CausalRunner, EncoderDecoderRunner, ModelRunner
from tests.engines.transformers import families

# Relative to the spread of the logits.
TOLERANCE = 1e-4


def runner_of(model: Any) -> ModelRunner:
    if model.config.is_encoder_decoder:
        return EncoderDecoderRunner(model, model.config.decoder_start_token_id, (2,))
    return CausalRunner(model)


def prefilled(runner: ModelRunner, prompt: list[int], chunk: int = 5) -> Prefilled:
    prefill = runner.prefill(prompt)
    while prefill.n_left:
        assert prefill.advance(chunk) > 0
    return prefill.finish()


def prompts(count: int, lengths: tuple[int, ...] = (1, 2, 7, 12, 30)) -> list[list[int]]:
    numbers = random.Random(1)
    return [
        [numbers.randrange(3, families.N_VOCAB) for _ in range(numbers.choice(lengths))]
        for _ in range(count)
    ]


@pytest.fixture(autouse=True)
def inference() -> Any:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("family", [*families.CAUSAL, "t5"])
def test_rows_that_come_and_go_are_what_they_are_alone(family: str) -> None:
    runner = runner_of(families.build(family))
    batch = Batch(runner, 3)
    waiting, numbers = prompts(8), random.Random(2)
    texts: dict[Row, tuple[list[int], list[int], int]] = {}
    while waiting or texts:
        while waiting and batch.n_free:
            prompt = waiting.pop()
            row = batch.join(prefilled(runner, prompt))
            texts[row] = (prompt, [], numbers.choice([2, 5, 11, 40]))
        logits = batch.step()
        for row, (prompt, answer, length) in list(texts.items()):
            expected = runner.whole(prompt, answer)
            difference = (logits[row.index] - expected).abs().max()
            assert difference < TOLERANCE * max(1.0, float(expected.std()))
            row.token = int(logits[row.index].argmax())
            answer.append(row.token)
            if len(answer) == length:
                del texts[row]
        for row in [row for row in batch.rows if row not in texts]:
            batch.leave(row)
    assert not batch.rows


@pytest.mark.parametrize("family", [*families.CAUSAL, "t5"])
def test_greedy_tokens_are_those_of_generate(family: str) -> None:
    model = families.build(family)
    runner = runner_of(model)
    texts = prompts(4)
    batch = Batch(runner, 4)
    rows = [batch.join(prefilled(runner, prompt)) for prompt in texts]
    answers: list[list[int]] = [[] for _ in rows]
    for _ in range(16):
        chosen = batch.step().argmax(1).tolist()
        for row, answer in zip(rows, answers, strict=True):
            row.token = chosen[row.index]
            answer.append(row.token)
    for prompt, answer in zip(texts, answers, strict=True):
        whole = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=16,
            min_new_tokens=16,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        start = 1 if model.config.is_encoder_decoder else len(prompt)
        assert whole[0, start:].tolist() == answer


def test_one_prompt_may_join_several_times() -> None:
    runner = runner_of(families.build("llama"))
    batch = Batch(runner, 3)
    ready = prefilled(runner, [5, 6, 7])
    batch.join(ready)
    batch.join(ready)
    logits = batch.step()
    assert torch.equal(logits[0], logits[1])


def test_a_full_batch_takes_no_more() -> None:
    runner = runner_of(families.build("llama"))
    batch = Batch(runner, 1)
    batch.join(prefilled(runner, [5]))
    with pytest.raises(IndexError, match="all 1 rows"):
        batch.join(prefilled(runner, [5]))
