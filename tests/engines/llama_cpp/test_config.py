from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
import pytest

from engines.errors import InvalidOption
from engines.llama_cpp.config import LARGEST_DEFAULT_CONTEXT, LlamaCppOptions, Lora
from engines.options import read_options


@pytest.mark.parametrize(
    "options",
    [
        {"n_slots": 0},
        {"context_length": 0},
        {"n_threads": 0},
        {"prefill_chunk": 0},
        {"max_queue": -1},
        {"n_slots": 8, "n_batch": 8},
        {"n_batch": 4},
    ],
)
def test_values_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"n_slots|context_length|n_threads|prefill|queue|n_batch"):
        LlamaCppOptions("model.gguf", **options)


def test_a_batch_holds_all_slots_and_a_chunk_by_default() -> None:
    assert LlamaCppOptions("model.gguf", prefill_chunk=100).batch_size(4) == 104


@pytest.mark.parametrize(("trained", "length"), [(1024, 1024), (131072, LARGEST_DEFAULT_CONTEXT)])
def test_the_context_is_the_models_own_up_to_a_bound(trained: int, length: int) -> None:
    assert LlamaCppOptions("model.gguf").resolve_context_length(trained) == length


def test_the_context_can_be_set() -> None:
    options = LlamaCppOptions("model.gguf", context_length=8192)
    assert options.resolve_context_length(131072) == 8192


def test_options_travel_as_plain_values() -> None:
    options = LlamaCppOptions("model.gguf", n_slots=2, lora=(Lora("style.gguf", 0.5),))
    travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(asdict(options)))
    assert read_options(LlamaCppOptions, travelled) == options


def test_a_misspelt_key_of_an_adapter_is_refused() -> None:
    given = {"model_path": "model.gguf", "lora": [{"path": "style.gguf", "scal": 0.5}]}
    with pytest.raises(InvalidOption, match=r"lora: .*scal"):
        read_options(LlamaCppOptions, given)


def test_the_scale_of_an_adapter_is_finite() -> None:
    with pytest.raises(ValueError, match=r"scale of style\.gguf"):
        LlamaCppOptions("model.gguf", lora=(Lora("style.gguf", float("inf")),))


@pytest.mark.parametrize(
    ("kv_type", "size"), [("f32", 4 * 64), ("f16", 2 * 64), ("q8_0", 2 * 34), ("q4_0", 2 * 18)]
)
def test_what_keys_and_values_take(kv_type: Any, size: int) -> None:
    assert LlamaCppOptions("model.gguf", kv_type=kv_type).kv_bytes(64) == size


def test_quantised_values_without_flash_attention_are_refused() -> None:
    with pytest.raises(ValueError, match="q8_0 needs flash attention"):
        LlamaCppOptions("model.gguf", kv_type="q8_0", flash_attn=False)
    assert LlamaCppOptions("model.gguf", kv_type="f32", flash_attn=False).flash_attn is False


def test_layers_on_the_gpu_are_a_count_or_all() -> None:
    with pytest.raises(ValueError, match="n_gpu_layers"):
        LlamaCppOptions("model.gguf", n_gpu_layers=-2)
