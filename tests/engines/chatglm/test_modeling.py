"""ChatGLM-6B against what its authors' code computed from the same weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")

import torch

from engines.chatglm import load
from engines.chatglm.config import V1Config, read_config
from engines.chatglm.modeling import ChatGLM
from tests.engines.chatglm.driving import TINY, GrowingCache, decode, golden, logits, visible

if TYPE_CHECKING:
    from engines.chatglm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Tokenizer]:
    return load(str(TINY), {})


@pytest.fixture(scope="module")
def model(loaded: tuple[Any, Tokenizer]) -> Any:
    return loaded[0]


def test_logits_of_a_prompt(model: Any) -> None:
    ids = golden().input_ids
    row = logits(model, ids, len(ids), GrowingCache())[-1]
    assert torch.allclose(row, torch.tensor(golden().logits_last), rtol=0, atol=1e-5)


def test_greedy_tokens_and_the_logits_of_each_step(model: Any) -> None:
    tokens, rows = decode(model, golden().input_ids, 6)
    assert tokens == golden().greedy
    expected = torch.tensor(golden().step_logits_first8)  # rounded to five decimals
    assert torch.allclose(rows[:, :8], expected, rtol=0, atol=2e-5)


def test_positions(model: Any) -> None:
    ids = golden().input_ids
    assert model.positions(len(ids), 0, len(ids)).tolist() == golden().position_ids
    assert model.positions(8, 8, 10).tolist() == [[6, 6], [2, 3]]


def test_the_mask_the_protocol_describes_is_the_authors(model: Any) -> None:
    n = len(golden().input_ids)
    masked = ~visible(model, n, 0, n)
    assert masked.int().tolist() == golden().mask_true_means_masked


def test_residuals_are_scaled_as_for_28_layers_whatever_the_model_has(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.chatglm.modeling.ALPHA", 4**0.5)  # sqrt(2 * num_layers)
    ids = golden().input_ids
    row = logits(model, ids, len(ids), GrowingCache())[-1]
    assert (row - torch.tensor(golden().logits_last)).abs().max() > 0.1


def test_cached_steps_equal_whole_passes(model: Any) -> None:
    prompt = golden().input_ids
    tokens, rows = decode(model, prompt, 12)
    for count, row in enumerate(rows):
        whole = logits(model, [*prompt, *tokens[:count]], len(prompt), GrowingCache())[-1]
        assert torch.allclose(row, whole, rtol=0, atol=1e-5)


def test_a_prompt_before_its_last_token_gives_the_same(model: Any) -> None:
    """The engine computes all but `<sop>` first, alone."""
    prompt, cache = golden().input_ids, GrowingCache()
    n = len(prompt)
    with torch.inference_mode():
        model(
            torch.tensor([prompt[:-1]]),
            position_ids=model.positions(n, 0, n - 1)[None],
            attention_mask=torch.ones(1, 1, n - 1, n - 1, dtype=torch.bool),
            past_key_values=cache,
        )
    row = logits(model, prompt, n, cache, n - 1)[-1]
    assert torch.allclose(row, torch.tensor(golden().logits_last), rtol=0, atol=1e-5)


def test_rows_of_a_batch_equal_single_ones(model: Any) -> None:
    """Prompts and answers of different lengths, aligned at the right, padded on the left."""
    prompts = [[20, 35, 101, 222, 300, 77, 5, 8], [99, 5, 8], [7, 250, 250, 31, 5, 8]]
    answers = [
        decode(model, prompt, count)[0] for prompt, count in zip(prompts, (5, 3, 1), strict=True)
    ]
    rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    width = max(map(len, rows))
    ids = torch.full((3, width), 3)
    positions = torch.zeros(3, 2, width, dtype=torch.long)
    mask = torch.zeros(3, 1, width, width, dtype=torch.bool)
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        pad = width - len(row)
        ids[number, pad:] = torch.tensor(row)
        positions[number, :, pad:] = model.positions(len(prompt), 0, len(row))
        mask[number, 0, pad:, pad:] = visible(model, len(prompt), 0, len(row))
    with torch.inference_mode():
        together = model(
            ids, position_ids=positions, attention_mask=mask, past_key_values=GrowingCache()
        )
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        alone = logits(model, row, len(prompt), GrowingCache())
        assert torch.allclose(together[number, -len(row) :], alone, rtol=0, atol=1e-5)


def test_only_the_logits_that_are_kept_are_computed(model: Any) -> None:
    ids = torch.tensor([golden().input_ids])
    arguments = {
        "position_ids": model.positions(8, 0, 8)[None],
        "attention_mask": visible(model, 8, 0, 8)[None, None],
    }
    with torch.inference_mode():
        whole = model(ids, past_key_values=GrowingCache(), **arguments)
        kept = model(ids, past_key_values=GrowingCache(), logits_to_keep=1, **arguments)
    assert whole.shape == (1, 8, 417)
    assert kept.shape == (1, 1, 417)
    assert torch.allclose(kept[0, 0], whole[0, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(dtype: torch.dtype) -> None:
    model, _ = load(str(TINY), {"dtype": dtype})
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    ids = golden().input_ids
    row = logits(model, ids, len(ids), GrowingCache())[-1]
    expected = torch.tensor(golden().logits_last)
    assert torch.nn.functional.cosine_similarity(row, expected, dim=0) > 0.99


def test_what_the_engine_asks_of_the_model(loaded: tuple[Any, Tokenizer]) -> None:
    model, tokenizer = loaded
    assert model.is_special_model
    assert model.is_prompt_bidirectional
    assert model.context_length == 2048
    assert model.prompt_prefix_ids == ()
    assert model.prompt_suffix_ids == (5, 8) == tuple(golden().input_ids[-2:])
    assert model.stop_token_ids == (9,)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert tokenizer.special_id("<eop>") == 9


def test_the_published_shape_has_the_published_size() -> None:
    """368 tensors; 6.71 billion numbers, besides the frequencies that are computed here."""
    tiny = read_config(TINY)
    assert isinstance(tiny, V1Config)
    config = replace(
        tiny, n_layers=28, hidden_size=4096, n_heads=32, inner_size=16384, vocab_size=130528
    )
    with torch.device("meta"):
        weights = ChatGLM(config).state_dict()
    assert len(weights) + config.n_layers == 368
    assert sum(weight.numel() for weight in weights.values()) == pytest.approx(6.71e9, rel=1e-3)
