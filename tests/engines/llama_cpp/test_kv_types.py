"""Formats of keys and values: what they take in memory, and what they do to an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from llama_cpp import llama_cpp as native

from engines.errors import ModelLoadError
from engines.llama_cpp.binding import Context
from engines.llama_cpp.config import KvType, LlamaCppOptions
from engines.llama_cpp.loading import load
from tests.engines.llama_cpp.conftest import PARLM_TINY

N_TOKENS = 256


@contextmanager
def loaded(path: Path, **options: Any) -> Iterator[tuple[Context, LlamaCppOptions, int]]:
    """A context of one slot, its options and the numbers a token takes in it."""
    settings = LlamaCppOptions(str(path), n_threads=1, n_slots=1, **options)
    model, context, _ = load(settings)
    yield context, settings, model.kv_numbers_per_token
    context.close()
    model.close()


def logits(context: Context) -> NDArray[np.float32]:
    """Decode the same tokens each time; return the logits after them."""
    context.batch.tokens[:N_TOKENS] = np.random.default_rng(0).integers(300, 2000, N_TOKENS)
    context.batch.positions[:N_TOKENS] = np.arange(N_TOKENS)
    context.batch.slots[:N_TOKENS] = 0
    context.batch.outputs[:N_TOKENS] = 0
    context.batch.outputs[N_TOKENS - 1] = 1
    context.decode(N_TOKENS)
    row: NDArray[np.float32] = context.logits(1)[0].copy()
    return row


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0", "q4_0"])
def test_a_token_takes_what_sizing_counts(kv_type: KvType) -> None:
    with loaded(PARLM_TINY, kv_type=kv_type) as (context, options, numbers):
        logits(context)
        held = native.llama_state_seq_get_size(context.pointer, 0)
        counted = N_TOKENS * options.kv_bytes(numbers)
        assert counted <= held < counted * 1.05 + 8 * N_TOKENS  # positions lie beside them


def test_the_coarsest_format_rounds_most() -> None:
    rows = {}
    for kv_type in ("f32", "f16", "q8_0", "q4_0"):
        with loaded(PARLM_TINY, kv_type=kv_type) as (context, _, _):
            rows[kv_type] = logits(context)
    off = {name: float(np.abs(row - rows["f32"]).mean()) for name, row in rows.items()}
    # Below four bits of rounding the order in which numbers are added counts as much.
    assert min(off["f16"], off["q8_0"]) > 0
    assert max(off["f16"], off["q8_0"]) < 0.5 * off["q4_0"] < 0.2 * float(rows["f32"].std())


def test_a_model_whose_heads_are_no_whole_blocks_is_told_so(tiny_gguf: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"block size 32 does not divide.*set kv_type to f16"):
        load(LlamaCppOptions(str(tiny_gguf), n_threads=1, kv_type="q8_0"))
