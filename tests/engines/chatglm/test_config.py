"""Which generation a folder is of, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")

from engines.chatglm.config import V1Config, V2Config, is_chatglm, is_v1, read_config
from engines.errors import ModelLoadError
from tests.engines.chatglm.tiny_chatglm2 import config as v2_fields

TINY = Path(__file__).parents[2] / "data" / "chatglm_tiny"
V1_FIELDS: dict[str, Any] = json.loads((TINY / "config.json").read_bytes())


def write(folder: Path, fields: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def test_the_first_generation() -> None:
    assert read_config(TINY) == V1Config(2, 64, 4, 256, 1e-5, 417, 2048, 8, 9, 5)


def test_later_generations(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, v2_fields()))
    assert config == V2Config(3, 64, 4, 2, 16, 96, 1e-5, 320, 512)


@pytest.mark.parametrize("mark", ["position_encoding_2d", "inner_hidden_size"])
def test_one_mark_of_the_first_generation_is_enough(mark: str) -> None:
    assert is_v1({"model_type": "chatglm", mark: True})


def test_no_name_decides() -> None:
    assert not is_v1({"model_type": "chatglm", "_name_or_path": "THUDM/chatglm-6b"})
    assert is_chatglm(v2_fields())
    assert not is_chatglm({"model_type": "llama", "_name_or_path": "chatglm-6b"})


def test_another_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="not of a ChatGLM"):
        read_config(write(tmp_path, {"model_type": "llama"}))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("fields", [V1_FIELDS, v2_fields()], ids=["v1", "v2"])
def test_int4_and_int8_are_refused_with_the_reason(
    tmp_path: Path, fields: dict[str, Any], bits: int
) -> None:
    with pytest.raises(ModelLoadError, match=f"int{bits} weights.*cpm_kernels"):
        read_config(write(tmp_path, {**fields, "quantization_bit": bits}))


def test_a_tuned_prefix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="P-Tuning"):
        read_config(write(tmp_path, {**V1_FIELDS, "pre_seq_len": 128}))
    assert read_config(write(tmp_path, {**V1_FIELDS, "pre_seq_len": None}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_layers", None),
        ("num_layers", 0),
        ("hidden_size", 68),
        ("vocab_size", "417"),
        ("max_sequence_length", True),
        ("layernorm_epsilon", 2.0),
        ("bos_token_id", -1),
        ("eos_token_id", None),
        ("position_encoding_2d", False),
    ],
)
def test_wrong_fields_of_the_first_generation_are_named(
    tmp_path: Path, field: str, value: object
) -> None:
    with pytest.raises(ModelLoadError, match=rf"config\.json: {field} is {value!r}"):
        read_config(write(tmp_path, {**V1_FIELDS, field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("padded_vocab_size", None),
        ("num_attention_heads", 5),
        ("rmsnorm", False),
        ("add_bias_linear", True),
        ("original_rope", False),
        ("rope_ratio", 16),
        ("apply_residual_connection_post_layernorm", True),
    ],
)
def test_wrong_fields_of_later_generations_are_named(
    tmp_path: Path, field: str, value: object
) -> None:
    with pytest.raises(ModelLoadError, match=rf"config\.json: {field} is {value!r}"):
        read_config(write(tmp_path, v2_fields(**{field: value})))
