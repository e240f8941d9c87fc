"""The GGUF file that a legacy one becomes: every number of it, read by the gguf package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import ModelLoadError
from engines.gguf import read_gguf
from engines.gptj.conversion import Conversion
from engines.gptj.legacy_file import LegacyFile, read_legacy
from tests.engines.gptj_files import (
    F16,
    F32,
    GPTJ,
    Q4_0,
    Q4_1,
    Array,
    pack_tensor,
    small_vocabulary,
    stored,
)
from tests.engines.tiny_gguf import train_merges

MODEL = GPTJ()


def legacy(tmp_path: Path, content: bytes) -> LegacyFile:
    path = tmp_path / "legacy.bin"
    path.write_bytes(content)
    return read_legacy(path)


def convert(file: LegacyFile) -> Path:
    target = file.path.with_suffix(".gguf")
    conversion = Conversion(file, {"a.key": "a value"})
    seen: list[tuple[int, int]] = []
    with target.open("wb") as opened:
        conversion.write(opened, lambda *progress: seen.append(progress))
    assert target.stat().st_size == conversion.size
    assert seen == sorted(seen)
    assert seen[-1] == (conversion.size, conversion.size)
    return target


def expected(weights: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors of phi2, by a way of its own: through coordinates, not through rows."""
    names = {"ln_1": "attn_norm", "attn.out_proj": "attn_output"}
    names |= {f"attn.{n}_proj": f"attn_{n}" for n in "qkv"}
    names |= {"mlp.fc_in": "ffn_up", "mlp.fc_out": "ffn_down", "lm_head": "output"}
    names |= {"transformer.wte": "token_embd", "transformer.ln_f": "output_norm"}
    tensors = {}
    for name, array in weights.items():
        stem, kind = name.rsplit(".", 1)
        block = ""
        if stem.startswith("transformer.h."):
            layer, stem = stem.removeprefix("transformer.h.").split(".", 1)
            block = f"blk.{layer}."
            tensors[f"{block}attn_output.bias"] = np.zeros(MODEL.n_embd, np.float32)
        changed = halves(array) if stem in ("attn.q_proj", "attn.k_proj") else array
        tensors[f"{block}{names[stem]}.{kind}"] = changed
    return tensors


def halves(array: Array) -> Array:
    size, result = MODEL.n_embd // MODEL.n_head, array.copy()
    for head in range(MODEL.n_head):
        for i in range(MODEL.n_rot // 2):
            result[head * size + i] = array[head * size + 2 * i]
            result[head * size + MODEL.n_rot // 2 + i] = array[head * size + 2 * i + 1]
    return result


@pytest.mark.parametrize(
    ("kind", "version"), [(F32, 0), (F16, 0), (Q4_0, 0), (Q4_1, 0), (Q4_0, 2), (Q4_1, 2)]
)
def test_every_weight(tmp_path: Path, kind: int, version: int) -> None:
    check_weights(tmp_path, MODEL, kind, version)


def test_tensors_whose_sizes_are_no_multiples_of_the_alignment(tmp_path: Path) -> None:
    model = GPTJ(vocabulary=small_vocabulary(n_unused=6))
    assert len(model.vocabulary) * 4 % 32
    check_weights(tmp_path, model, Q4_0, 0)


def check_weights(tmp_path: Path, model: GPTJ, kind: int, version: int) -> None:
    gguf: Any = pytest.importorskip("gguf", reason="gguf is not installed")
    reader = gguf.GGUFReader(convert(legacy(tmp_path, model.pack(kind, version))))
    tensors = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in reader.tensors
    }
    wanted = expected(stored(model.weights(), kind))
    assert tensors.keys() == wanted.keys()
    for name, array in wanted.items():
        # Only scales have been rounded, to 11 bits.
        tolerance = np.abs(array).max() / 1024 if kind in (Q4_0, Q4_1) and array.ndim == 2 else 0
        assert np.abs(tensors[name].reshape(array.shape) - array).max() <= tolerance, name
    assert {t.tensor_type for t in reader.tensors if len(t.shape) == 2} == {kind}
    assert {t.tensor_type for t in reader.tensors if len(t.shape) == 1} == {F32}


def test_the_metadata(tmp_path: Path) -> None:
    keys = [f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "merges")]
    metadata = read_gguf(convert(legacy(tmp_path, MODEL.pack(Q4_0))), arrays=keys).metadata
    end = MODEL.vocabulary.index(b"<|endoftext|>")
    phi2 = {
        "context_length": 256,
        "embedding_length": 64,
        "feed_forward_length": 256,
        "block_count": 2,
        "attention.head_count": 4,
        "attention.head_count_kv": 4,
        "rope.dimension_count": 8,
        "rope.freq_base": 10000.0,
    }
    assert {key: metadata[f"phi2.{key}"] for key in phi2} == phi2
    assert metadata["phi2.attention.layer_norm_epsilon"] == pytest.approx(1e-5)
    general = {"architecture": "phi2", "name": "legacy", "file_type": 2, "quantization_version": 2}
    assert {key: metadata[f"general.{key}"] for key in general} == general
    tokenizer = {"model": "gpt2", "pre": "gpt-2", "add_bos_token": False}
    tokenizer |= {"bos_token_id": end, "eos_token_id": end}
    assert {key: metadata[f"tokenizer.ggml.{key}"] for key in tokenizer} == tokenizer
    tokens, types, merges = (metadata[key] for key in keys)
    assert isinstance(tokens, tuple)
    assert tokens[0] == "!"
    assert tokens[end : end + 2] == ("<|endoftext|>", "<|extratoken_1|>")
    assert types == (*[1] * end, 3, *[5] * 7)
    assert merges == tuple(" ".join(pair) for pair in train_merges())
    assert metadata["a.key"] == "a value"


def test_norms_and_biases_in_f16_become_f32(tmp_path: Path) -> None:
    gguf: Any = pytest.importorskip("gguf", reason="gguf is not installed")
    content = MODEL.header() + b"".join(
        pack_tensor(name, array, F16) for name, array in MODEL.weights().items()
    )
    reader = gguf.GGUFReader(convert(legacy(tmp_path, content)))
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    bias = MODEL.weights()["transformer.ln_f.bias"]
    assert tensors["output_norm.bias"].tensor_type == F32
    assert np.array_equal(tensors["output_norm.bias"].data, bias.astype(np.float16))


@pytest.mark.parametrize("chunk", [1, 700, 2000, 3000, 100_000])
def test_the_size_of_the_chunks_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    file = legacy(tmp_path, MODEL.pack(Q4_0))
    whole = convert(file).read_bytes()
    monkeypatch.setattr("engines.gptj.rows.CHUNK_BYTES", chunk)
    assert convert(file).read_bytes() == whole


def test_a_scale_that_f16_cannot_hold_names_the_tensor(tmp_path: Path) -> None:
    content = bytearray(MODEL.pack(Q4_0))
    file = legacy(tmp_path, bytes(content))
    at = file.tensors["transformer.h.1.attn.v_proj.weight"].offset + 20
    content[at : at + 4] = np.array([1e6], "<f4").tobytes()
    with pytest.raises(ModelLoadError, match=r"legacy\.bin: transformer\.h\.1\.attn\.v_proj"):
        convert(legacy(tmp_path, bytes(content)))


def test_a_vocabulary_without_merges(tmp_path: Path) -> None:
    model = GPTJ(vocabulary=(*MODEL.vocabulary[:256], b"<|endoftext|>"), n_embd=32, n_layer=1)
    with pytest.raises(ModelLoadError, match=r"legacy\.bin cannot be converted"):
        Conversion(legacy(tmp_path, model.pack()), {})


def test_a_source_that_shrinks_meanwhile(tmp_path: Path) -> None:
    file = legacy(tmp_path, MODEL.pack(Q4_0))
    file.path.write_bytes(file.path.read_bytes()[:-100])
    with pytest.raises(ModelLoadError, match="became shorter"):
        convert(file)


def test_a_source_that_is_gone_meanwhile(tmp_path: Path) -> None:
    file = replace(legacy(tmp_path, MODEL.pack(Q4_0)), path=tmp_path / "gone.bin")
    with pytest.raises(ModelLoadError, match=r"gone\.bin cannot be read"):
        convert(file)
