"""The families' load adapters on tiny models of each architecture, loaded by transformers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from adapters.loading import default_device, model_type
from adapters.registry import llm_adapters
from tests.adapters.tiny_models import write_folder, write_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_llama(tmp_path_factory.mktemp("models") / "llama"))


def load(name: str, path: object, **options: Any) -> tuple[Any, Any]:
    return llm_adapters.by_name(name).loader(str(path), options)


def generates(model: Any, tokenizer: Any) -> bool:
    inputs = tokenizer("Hi", return_tensors="pt")
    ids = model.generate(inputs.input_ids, do_sample=False, max_new_tokens=2)
    return bool(ids.shape[1] > 1)


@pytest.mark.parametrize("name", ["vicuna", "gorilla", "default"])
def test_llama(name: str, llama: str) -> None:
    model, tokenizer = load(name, llama)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert generates(model, tokenizer)


def test_options_reach_the_model(llama: str) -> None:
    import torch

    model, _ = load("vicuna", llama, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16


def test_guanaco_s_bos(llama: str) -> None:
    model, tokenizer = load("guanaco", llama)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, model.config.eos_token_id)


def test_llama_2_s_ids_are_the_tokenizer_s(llama: str) -> None:
    model, _ = load("llama-2", llama)
    assert (model.config.eos_token_id, model.config.pad_token_id) == (2, 3)


def test_flan_t5_is_no_causal_model(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "t5",
        "T5ForConditionalGeneration",
        "T5Config",
        num_decoder_layers=1,
        d_kv=8,
        d_ff=32,
        decoder_start_token_id=3,
    )
    model, tokenizer = load("flan-t5", folder)
    assert type(model).__name__ == "T5ForConditionalGeneration"
    assert generates(model, tokenizer)


def test_gptj(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "gptj", "GPTJForCausalLM", "GPTJConfig", rotary_dim=4, n_positions=64
    )
    model, tokenizer = load("gptj", folder)
    assert type(model).__name__ == "GPTJForCausalLM"
    assert generates(model, tokenizer)


def test_gorilla_s_mpt(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mpt", "MptForCausalLM", "MptConfig", max_seq_len=64)
    model, tokenizer = load("gorilla", folder)
    assert type(model).__name__ == "MptForCausalLM"
    assert generates(model, tokenizer)


REFINED_WEB = {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}


@pytest.mark.parametrize(("old_type", "is_new"), [("RefinedWeb", True), ("RefinedWebModel", False)])
@pytest.mark.parametrize(("name", "pad"), [("falcon", 9), ("gorilla", 11)])
def test_falcon_and_its_first_release(
    tmp_path: Path, old_type: str, is_new: bool, name: str, pad: int
) -> None:
    folder = write_folder(
        tmp_path / "falcon", "FalconForCausalLM", "FalconConfig", new_decoder_architecture=is_new
    )
    model, tokenizer = load(name, folder)
    assert generates(model, tokenizer)
    assert tokenizer.pad_token_id == pad
    _make_refined_web(folder / "config.json", old_type)
    assert model_type(str(folder)) == old_type
    old, _ = load(name, folder)
    inputs = tokenizer("Hello", return_tensors="pt").input_ids
    assert old.config.model_type == "falcon"
    assert old(inputs).logits.equal(model(inputs).logits)


def _make_refined_web(file: Path, old_type: str) -> None:
    """Write the configuration as the first release's folders have it."""
    config = json.loads(file.read_text())
    config = {REFINED_WEB.get(name, name): value for name, value in config.items()}
    if "num_kv_heads" in config:
        config["n_head_kv"] = config.pop("num_kv_heads")
    del config["new_decoder_architecture"]
    auto_map = {"AutoModelForCausalLM": "modelling_RW.RWForCausalLM"}
    config |= {"model_type": old_type, "architectures": ["RWForCausalLM"], "auto_map": auto_map}
    file.write_text(json.dumps(config))


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "vicuna")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        load("vicuna", folder)


def test_the_proxy_has_nothing_to_load() -> None:
    assert load("proxyllm", "proxyllm") == ("proxyllm", None)


@pytest.mark.parametrize("name", ["chatglm", "chatglm2"])
def test_chatglm_is_loaded_by_the_engine_s_own_model(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(path: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return path, options

    monkeypatch.setitem(sys.modules, "engines.chatglm", SimpleNamespace(load=loaded))
    assert load(name, "/m", dtype="x") == ("/m", {"dtype": "x"})


def test_the_device() -> None:
    assert default_device() in ("cpu", "cuda", "mps")
