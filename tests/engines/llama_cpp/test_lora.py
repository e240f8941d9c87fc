"""LoRA adapters: the logits are those of the merged weights; a wrong file is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
pytest.importorskip("gguf", reason="gguf is not installed")

from engines.errors import ModelLoadError
from engines.llama_cpp.config import LlamaCppOptions, Lora
from engines.llama_cpp.loading import load
from tests.engines.lora_gguf import merge, write_lora

TOKENS = [1, 300, 310, 320, 330, 340]


def logits(path: Path, *lora: Lora, **options: Any) -> NDArray[np.float32]:
    """The logits after `TOKENS`."""
    settings = LlamaCppOptions(str(path), n_threads=1, n_slots=2, lora=lora, **options)
    model, context, _ = load(settings)
    n = len(TOKENS)
    context.batch.tokens[:n] = TOKENS
    context.batch.positions[:n] = np.arange(n)
    context.batch.slots[:n] = 1
    context.batch.outputs[:n] = 0
    context.batch.outputs[n - 1] = 1
    context.decode(n)
    row: NDArray[np.float32] = context.logits(1)[0].copy()
    context.close()
    model.close()
    return row


@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_an_adapter_counts_like_merged_weights(
    tiny_gguf: Path, tmp_path: Path, scale: float
) -> None:
    factors = write_lora(tmp_path / "lora.gguf")
    with_adapter = logits(tiny_gguf, Lora(str(tmp_path / "lora.gguf"), scale))
    merged = logits(merge(tiny_gguf, tmp_path / "merged.gguf", factors, scale))
    change = np.abs(merged - logits(tiny_gguf)).max()
    assert np.abs(with_adapter - merged).max() < 0.02 * change


def test_two_adapters_add_up(tiny_gguf: Path, tmp_path: Path) -> None:
    factors = write_lora(tmp_path / "lora.gguf")
    lora = Lora(str(tmp_path / "lora.gguf"), 0.25)
    other = Lora(str(write_copy(tmp_path)), 0.75)
    merged = logits(merge(tiny_gguf, tmp_path / "merged.gguf", factors, 1.0))
    change = np.abs(merged - logits(tiny_gguf)).max()
    assert np.abs(logits(tiny_gguf, lora, other) - merged).max() < 0.02 * change


def write_copy(folder: Path) -> Path:
    path = folder / "same.gguf"
    write_lora(path)
    return path


def refusal(model: Path, path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        logits(model, Lora(str(path)))
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_file(tiny_gguf: Path, tmp_path: Path) -> None:
    assert "does not exist" in refusal(tiny_gguf, tmp_path / "none.gguf")


def test_a_folder(tiny_gguf: Path, tmp_path: Path) -> None:
    assert "convert_lora_to_gguf.py" in refusal(tiny_gguf, tmp_path)


def test_a_model_is_no_adapter(tiny_gguf: Path) -> None:
    assert "is no LoRA adapter" in refusal(tiny_gguf, tiny_gguf)


def test_another_architecture(tiny_gguf: Path, tmp_path: Path) -> None:
    write_lora(tmp_path / "lora.gguf", architecture="falcon")
    message = refusal(tiny_gguf, tmp_path / "lora.gguf")
    assert "'falcon', but this one is 'llama'" in message


def test_another_model_of_the_same_architecture(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.engines.lora_gguf.TARGETS", {"blk.0.attn_q.weight": (96, 96)})
    write_lora(tmp_path / "lora.gguf")
    message = refusal(tiny_gguf, tmp_path / "lora.gguf")
    assert "incorrect shape" in message
    assert "engine_args" in message


def test_an_activated_adapter(tiny_gguf: Path, tmp_path: Path) -> None:
    write_lora(tmp_path / "lora.gguf", more={"adapter.alora.invocation_tokens": [1, 2]})
    assert "aLoRA" in refusal(tiny_gguf, tmp_path / "lora.gguf")
