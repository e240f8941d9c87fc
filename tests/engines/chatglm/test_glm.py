"""ChatGLM2-6B: the authors' layout through transformers' GLM, against llama.cpp's own code."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")

import numpy as np
import torch
from transformers import GlmForCausalLM

from engines.chatglm import load
from engines.chatglm.config import V2Config
from engines.chatglm.glm import expected_shapes, glm_config, renamed
from tests.engines.chatglm.driving import GrowingCache, decode, logits, visible
from tests.engines.chatglm.tiny_chatglm2 import (
    CONTEXT,
    EOS,
    GMASK,
    N_VOCAB,
    SOP,
    random_weights,
    write_folder,
    write_gguf,
)

# The prefix of every prompt, then ids from all over the vocabulary.
PROMPT = [GMASK, SOP, 17, 299, 4, 123, 88, 88, 250, 13, 13, 61, 170]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_folder(tmp_path_factory.mktemp("chatglm2"), random_weights())
    return load(str(folder), {})[0]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """llama.cpp with the same weights, under its architecture `chatglm`."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    pytest.importorskip("gguf", reason="gguf is not installed")
    file = write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", random_weights())
    llama = llama_cpp.Llama(
        str(file),
        n_ctx=CONTEXT,
        n_threads=1,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    yield llama
    llama.close()


def llama_logits(llama: Any, ids: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    llama.reset()
    llama.eval(ids)
    rows: np.ndarray[Any, np.dtype[np.float32]] = llama.scores[: len(ids)]
    return rows


def test_logits_are_those_of_llama_cpp(model: Any, llama: Any) -> None:
    """At every position of a long text, so that the rotary embedding has turned far."""
    ids = [*PROMPT, *np.random.default_rng(0).integers(3, 300, 300).tolist()]
    ours = logits(model, ids, len(ids), GrowingCache()).numpy()
    theirs = llama_logits(llama, ids)
    assert ours.shape == theirs.shape == (len(ids), N_VOCAB)
    assert ours.std() > 1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4)


def test_greedy_tokens_are_those_of_llama_cpp(model: Any, llama: Any) -> None:
    ids = list(PROMPT)
    for _ in range(40):
        ids.append(int(llama_logits(llama, ids)[-1].argmax()))
    tokens, _ = decode(model, PROMPT, 40)
    assert tokens == ids[len(PROMPT) :]
    assert len(set(tokens)) > 5


def test_the_comparison_sees_a_wrong_order(llama: Any, tmp_path: Path) -> None:
    """Were key and value the other way round, the logits would tell."""
    weights = random_weights()
    for name in weights:
        if "query_key_value" in name:
            query, key, value = weights[name].split((64, 32, 32))
            weights[name] = torch.cat((query, value, key))
    wrong, _ = load(str(write_folder(tmp_path, weights)), {})
    ours = logits(wrong, PROMPT, len(PROMPT), GrowingCache()).numpy()
    assert np.abs(ours - llama_logits(llama, PROMPT)).max() > 0.5


def test_cached_steps_equal_whole_passes(model: Any) -> None:
    tokens, rows = decode(model, PROMPT, 12)
    for count, row in enumerate(rows):
        whole = logits(model, [*PROMPT, *tokens[:count]], len(PROMPT), GrowingCache())[-1]
        assert torch.allclose(row, whole, rtol=0, atol=1e-4)


def test_rows_of_a_batch_equal_single_ones(model: Any) -> None:
    rows = [PROMPT, PROMPT[:5], [GMASK, SOP, 9]]
    width = max(map(len, rows))
    ids = torch.zeros(3, width, dtype=torch.long)
    positions = torch.zeros(3, 1, width, dtype=torch.long)
    mask = torch.eye(width, dtype=torch.bool).repeat(3, 1, 1, 1)
    for number, row in enumerate(rows):
        pad = width - len(row)
        ids[number, pad:] = torch.tensor(row)
        positions[number, :, pad:] = model.positions(len(row), 0, len(row))
        mask[number, 0, pad:, pad:] = visible(model, len(row), 0, len(row))
    with torch.inference_mode():
        together = model(
            ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=GrowingCache(),
            logits_to_keep=1,
        )
    assert together.shape == (3, 1, N_VOCAB)
    for number, row in enumerate(rows):
        alone = logits(model, row, len(row), GrowingCache())[-1]
        assert torch.allclose(together[number, 0], alone, rtol=0, atol=1e-4)


def test_what_the_engine_asks_of_the_model(model: Any) -> None:
    assert model.is_special_model
    assert not model.is_prompt_bidirectional
    assert model.context_length == CONTEXT
    assert model.prompt_prefix_ids == (GMASK, SOP)
    assert model.prompt_suffix_ids == ()
    assert EOS in model.stop_token_ids
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(model: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    half, _ = load(str(write_folder(tmp_path, random_weights())), {"dtype": dtype})
    assert {weight.dtype for weight in half.parameters()} == {dtype}
    row = logits(half, PROMPT, len(PROMPT), GrowingCache())[-1]
    expected = logits(model, PROMPT, len(PROMPT), GrowingCache())[-1]
    assert torch.nn.functional.cosine_similarity(row, expected, dim=0) > 0.99


def test_the_published_shape_has_the_published_size() -> None:
    """6,243,584,000 parameters, as the model's page counts them."""
    config = V2Config(28, 4096, 32, 2, 128, 13696, 1e-5, 65024, 32768)
    shapes = expected_shapes(config)
    assert shapes["transformer.encoder.layers.27.self_attention.query_key_value.weight"] == (
        4608,
        4096,
    )
    assert sum(prod(shape) for shape in shapes.values()) == 6_243_584_000
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in shapes.items()}
        glm = GlmForCausalLM(glm_config(config))
    named = {name: tensor.shape for name, tensor in renamed(config, weights).items()}
    assert named == {name: tensor.shape for name, tensor in glm.state_dict().items()}
