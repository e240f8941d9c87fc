"""From a folder to a model, or the name of what is wrong with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")
pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")

import torch
from safetensors.torch import load_file, save_file

from engines.chatglm import load
from engines.checkpoints import convert_checkpoint
from engines.errors import ModelLoadError
from tests.engines.chatglm.driving import TINY, decode, golden
from tests.engines.chatglm.tiny_chatglm2 import random_weights, write_folder

SMALL_FILES = ("config.json", "ice_text.model")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the tiny model, without its weights."""
    for name in SMALL_FILES:
        shutil.copy(TINY / name, tmp_path)
    return tmp_path


def tiny_weights() -> dict[str, Any]:
    weights: dict[str, Any] = load_file(TINY / "model.safetensors")
    return weights


def write_weights(folder: Path, weights: dict[str, Any]) -> None:
    save_file(weights, folder / "model.safetensors")


def test_the_authors_eight_files_are_converted_once_then_loaded(folder: Path) -> None:
    names = sorted(weights := tiny_weights())
    for number in range(8):
        shard = {name: weights[name] for name in names[number::8]}
        torch.save(shard, folder / f"pytorch_model-0000{number + 1}-of-00008.bin")
    with pytest.raises(ModelLoadError, match=f"parlm convert checkpoint {folder}"):
        load(str(folder), {})
    assert len(convert_checkpoint(folder, lambda _done, _total: None)) == 8
    model, _ = load(str(folder), {})
    assert decode(model, golden().input_ids, 6)[0] == golden().greedy


def test_half_precision_weights_are_widened(folder: Path) -> None:
    """As published: float16 in the files, float32 on a processor."""
    halves = {name: tensor.half() for name, tensor in tiny_weights().items()}
    write_weights(folder, halves)
    model, _ = load(str(folder), {"torch_dtype": torch.float32})
    for name, weight in model.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, halves[name].float())


def test_the_frequencies_of_a_file_are_ignored(folder: Path) -> None:
    weights = tiny_weights()
    name = "transformer.layers.0.attention.rotary_emb.inv_freq"
    assert name in weights
    write_weights(folder, weights | {name: torch.zeros(4)})
    model, _ = load(str(folder), {})
    assert decode(model, golden().input_ids, 6)[0] == golden().greedy


def test_a_loaded_model_does_not_need_its_files(folder: Path) -> None:
    write_weights(folder, tiny_weights())
    model, _ = load(str(folder), {})
    (folder / "model.safetensors").write_bytes(b"")
    assert decode(model, golden().input_ids, 6)[0] == golden().greedy


def test_a_missing_tensor_is_named(folder: Path) -> None:
    weights = tiny_weights()
    del weights["transformer.layers.1.mlp.dense_h_to_4h.bias"]
    write_weights(folder, weights)
    with pytest.raises(ModelLoadError, match=r"lacks the weights transformer\.layers\.1\.mlp\.den"):
        load(str(folder), {})


def test_many_missing_tensors_are_counted(folder: Path) -> None:
    write_weights(folder, {"lm_head.weight": tiny_weights()["lm_head.weight"]})
    with pytest.raises(ModelLoadError, match="and 24 more"):
        load(str(folder), {})


def test_an_unexpected_tensor_is_named(folder: Path) -> None:
    write_weights(folder, tiny_weights() | {"transformer.layers.2.weight": torch.ones(2)})
    with pytest.raises(ModelLoadError, match=r"do not belong .*transformer\.layers\.2\.weight"):
        load(str(folder), {})


def test_a_wrong_shape_is_named(folder: Path) -> None:
    write_weights(folder, tiny_weights() | {"lm_head.weight": torch.ones(417, 32)})
    with pytest.raises(ModelLoadError, match=r"lm_head\.weight has shape \(417, 32\)"):
        load(str(folder), {})


def test_a_truncated_file_is_named(folder: Path) -> None:
    whole = (TINY / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ModelLoadError, match=r"model\.safetensors is truncated"):
        load(str(folder), {})


def test_int4_weights_are_refused(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**fields, "quantization_bit": 4}))
    write_weights(folder, tiny_weights())
    with pytest.raises(ModelLoadError, match="cpm_kernels"):
        load(str(folder), {})


@pytest.mark.parametrize(
    ("argument", "value", "setting"),
    [
        ("quantization_config", object(), "QUANTIZE_8bit"),
        ("device_map", "auto", "NUM_GPUS"),
        ("dtype", torch.float64, "float64"),
    ],
)
def test_what_cannot_be_honoured_is_refused(argument: str, value: object, setting: str) -> None:
    with pytest.raises(ModelLoadError, match=setting):
        load(str(TINY), {argument: value})


def test_what_changes_nothing_is_taken() -> None:
    arguments = {"use_safetensors": True, "trust_remote_code": True, "device_map": None}
    model, _ = load(str(TINY), arguments)
    assert model.is_special_model


def test_a_wrong_chatglm2_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    weights = random_weights()
    layer = "transformer.encoder.layers.1."
    del weights[f"{layer}self_attention.query_key_value.bias"]
    with pytest.raises(ModelLoadError, match=r"layers\.1\.self_attention\.query_key_value\.bias"):
        load(str(write_folder(tmp_path, weights)), {})
    more = random_weights() | {f"{layer}mlp.dense_4h_to_h.weight_scale": torch.ones(64)}
    with pytest.raises(ModelLoadError, match=r"dense_4h_to_h\.weight_scale"):
        load(str(write_folder(tmp_path, more)), {})
    with pytest.raises(ModelLoadError, match=r"dense_h_to_4h\.weight has shape \(192, 64\)"):
        load(str(write_folder(tmp_path, random_weights(), ffn_hidden_size=95)), {})


def test_the_first_generation_needs_no_transformers_and_nothing_is_imported_early() -> None:
    program = (
        "import sys; import engines.chatglm as c; heavy = {'torch', 'safetensors', 'sentencepiece'}"
        "; assert heavy.isdisjoint(sys.modules); "
        f"c.load({str(TINY)!r}, {{}}); assert 'transformers' not in sys.modules; print('fine')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
