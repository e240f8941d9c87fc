"""A LoRA adapter for the random model, and the same model with the adapter merged into it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RANK, ALPHA = 4, 8.0
# Rows and columns of the weights that the adapter changes, in the file's own order.
TARGETS = {
    "blk.0.attn_q.weight": (64, 64),
    "blk.1.ffn_down.weight": (64, 128),
    "output.weight": (382, 64),
}

Factors = tuple[NDArray[np.float32], NDArray[np.float32]]


def write_lora(
    path: Path, architecture: str = "llama", more: Mapping[str, Any] | None = None
) -> dict[str, Factors]:
    """Write a random adapter; return its factors (A of rank x columns, B of rows x rank)."""
    import gguf

    rng = np.random.default_rng(5)
    writer = gguf.GGUFWriter(str(path), architecture)
    for key, value in {"general.type": "adapter", "adapter.type": "lora", **(more or {})}.items():
        writer.add_array(key, value) if isinstance(value, list) else writer.add_string(key, value)
    writer.add_float32("adapter.lora.alpha", ALPHA)
    factors = {}
    for name, (rows, columns) in TARGETS.items():
        a = 0.1 * rng.standard_normal((RANK, columns), dtype=np.float32)
        b = 0.1 * rng.standard_normal((rows, RANK), dtype=np.float32)
        factors[name] = a, b
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return factors


def merge(base: Path, merged: Path, factors: dict[str, Factors], scale: float) -> Path:
    """Copy a model and add `scale * alpha / rank * B A` to its weights, by numpy alone."""
    import gguf

    shutil.copy(base, merged)
    reader = gguf.GGUFReader(str(merged), "r+")
    for tensor in reader.tensors:
        if tensor.name in factors:
            a, b = factors[tensor.name]
            tensor.data[:] = tensor.data + (scale * ALPHA / RANK * (b @ a)).astype(np.float16)
    reader.data.flush()
    return merged
