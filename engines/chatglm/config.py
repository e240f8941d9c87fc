"""What a ChatGLM folder's `config.json` says: which generation it is, its shape and token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import ModelLoadError
from engines.huggingface_files import read_json

MODEL_TYPE = "chatglm"
# Both mark the first generation; later ones have neither. The name of a folder decides nothing:
# "chatglm" is a part of "chatglm2".
_V1_FIELDS = ("position_encoding_2d", "inner_hidden_size")
# Switches of the authors' code for the later generations, as every published model sets them.
_V2_SWITCHES: dict[str, object] = {
    "rmsnorm": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "multi_query_attention": True,
    "original_rope": True,
    "tie_word_embeddings": False,
    # chatglm2-6b-32k divides positions by it, chatglm3-6b-32k multiplies the rotary base with it.
    "rope_ratio": 1,
}


@dataclass(frozen=True, slots=True)
class V1Config:
    """ChatGLM-6B, the first generation.

    `context_length` is in tokens, prompt and answer together. `gmask_id` is None in releases
    that do not state it.
    """

    n_layers: int
    hidden_size: int
    n_heads: int
    inner_size: int
    layer_norm_eps: float
    vocab_size: int
    context_length: int
    bos_id: int
    eos_id: int
    gmask_id: int | None

    @property
    def head_size(self) -> int:
        """Numbers a head holds per token."""
        return self.hidden_size // self.n_heads


@dataclass(frozen=True, slots=True)
class V2Config:
    """ChatGLM2-6B, ChatGLM3-6B and what else is written in their layout."""

    n_layers: int
    hidden_size: int
    n_heads: int
    n_kv_heads: int
    head_size: int
    inner_size: int
    rms_norm_eps: float
    vocab_size: int
    context_length: int


ChatGLMConfig = V1Config | V2Config


def is_chatglm(config: Mapping[str, Any]) -> bool:
    """Tell whether a `config.json` is of one of the authors' ChatGLM layouts."""
    return config.get("model_type") == MODEL_TYPE


def is_v1(config: Mapping[str, Any]) -> bool:
    """Tell whether a ChatGLM `config.json` is of the first generation."""
    return is_chatglm(config) and any(field in config for field in _V1_FIELDS)


def read_config(folder: Path) -> ChatGLMConfig:
    """Read `config.json`. Raises `ModelLoadError` for another family and for what we cannot run."""
    file = folder / "config.json"
    config = read_json(file)
    if not is_chatglm(config):
        raise ModelLoadError(f"{file} is not of a ChatGLM model: its model_type is another")
    _refuse_variants(folder, config)
    fields = _Fields(file, config)
    return _read_v1(fields) if is_v1(config) else _read_v2(fields)


def _refuse_variants(folder: Path, config: Mapping[str, Any]) -> None:
    bits = config.get("quantization_bit")
    if bits:
        raise ModelLoadError(
            f"{folder} holds int{bits} weights, which only the authors' CUDA kernels (cpm_kernels) "
            "can read: get the repository without -int4 or -int8 in its name"
        )
    if config.get("pre_seq_len"):
        raise ModelLoadError(
            f"{folder} is a P-Tuning v2 checkpoint (pre_seq_len in config.json), whose prefix "
            "encoder is not supported: merge it, or use the model it was tuned from"
        )


class _Fields:
    """Reads numbers of one `config.json`; what is wrong is told by file and field."""

    def __init__(self, file: Path, config: Mapping[str, Any]) -> None:
        self._file = file
        self._config = config

    def count(self, name: str) -> int:
        value = self._config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._wrong(name, "a positive whole number")
        return value

    def token(self, name: str) -> int:
        value = self._config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._wrong(name, "a token id")
        return value

    def optional_token(self, name: str) -> int | None:
        return None if self._config.get(name) is None else self.token(name)

    def epsilon(self) -> float:
        value = self._config.get("layernorm_epsilon", 1e-5)
        if not isinstance(value, float) or not 0 < value < 1:
            raise self._wrong("layernorm_epsilon", "a small positive number")
        return value

    def require(self, name: str, wanted: object) -> None:
        """Refuse a switch that is set to something we do not compute."""
        value = self._config.get(name, wanted)
        if value != wanted:
            raise self._wrong(name, f"{wanted!r}: no other value is supported")

    def multiple(self, name: str, factor: int) -> int:
        value = self.count(name)
        if value % factor:
            raise self._wrong(name, f"a multiple of {factor}")
        return value

    def _wrong(self, name: str, right: str) -> ModelLoadError:
        value = self._config.get(name)
        return ModelLoadError(f"{self._file}: {name} is {value!r} and should be {right}")


def _read_v1(fields: _Fields) -> V1Config:
    fields.require("position_encoding_2d", True)
    n_heads = fields.count("num_attention_heads")
    return V1Config(
        n_layers=fields.count("num_layers"),
        # Each head is rotated in two halves, each half in pairs.
        hidden_size=fields.multiple("hidden_size", 4 * n_heads),
        n_heads=n_heads,
        inner_size=fields.count("inner_hidden_size"),
        layer_norm_eps=fields.epsilon(),
        vocab_size=fields.count("vocab_size"),
        context_length=fields.count("max_sequence_length"),
        bos_id=fields.token("bos_token_id"),
        eos_id=fields.token("eos_token_id"),
        gmask_id=fields.optional_token("gmask_token_id"),
    )


def _read_v2(fields: _Fields) -> V2Config:
    for name, wanted in _V2_SWITCHES.items():
        fields.require(name, wanted)
    n_kv_heads = fields.count("multi_query_group_num")
    return V2Config(
        n_layers=fields.count("num_layers"),
        hidden_size=fields.count("hidden_size"),
        n_heads=fields.multiple("num_attention_heads", n_kv_heads),
        n_kv_heads=n_kv_heads,
        head_size=fields.multiple("kv_channels", 4),
        inner_size=fields.count("ffn_hidden_size"),
        rms_norm_eps=fields.epsilon(),
        vocab_size=fields.count("padded_vocab_size"),
        context_length=fields.count("seq_length"),
    )
