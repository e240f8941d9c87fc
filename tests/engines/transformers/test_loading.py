"""What is refused at load, and with what advice."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import torch

from engines.errors import MissingDependency, ModelLoadError
from engines.transformers import placement
from engines.transformers.config import TransformersOptions
from engines.transformers.core import TransformersCore, create_core
from engines.transformers.loading import load
from engines.transformers.placement import choose_device, choose_dtype, loader_arguments
from tests.engines.tiny_folder import write_tiny_folder
from tests.engines.transformers.loaders import DEFAULT_LOADER


def options(folder: Path | str = "", **more: Any) -> TransformersOptions:
    usual: dict[str, Any] = {
        "model_path": str(folder),
        "loader": DEFAULT_LOADER,
        "device": "cpu",
        "n_threads": 1,
    }
    return TransformersOptions(**(usual | more))


def load_nothing(_path: str, _arguments: dict[str, Any]) -> tuple[Any, Any]:
    return object(), None


def load_no_generator(_path: str, _arguments: dict[str, Any]) -> tuple[Any, Any]:
    return torch.nn.Linear(1, 1), None


def load_one(_path: str, _arguments: dict[str, Any]) -> Any:
    return torch.nn.Linear(1, 1)


def load_too_much(_path: str, _arguments: dict[str, Any]) -> Any:
    raise torch.OutOfMemoryError("secret numbers")


def test_the_models_own_context_bounds_what_is_asked(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path, max_position_embeddings=100)
    for asked, given in ((None, 100), (50, 50), (500, 100)):
        core = create_core(
            model_path=str(folder), loader=DEFAULT_LOADER, device="cpu", context_length=asked
        )
        assert core.context_length == given


def test_a_stream_function_that_is_none_is_as_if_there_were_no_such(tiny_folder: Path) -> None:
    core = create_core(
        model_path=str(tiny_folder),
        loader=DEFAULT_LOADER,
        stream="tests.engines.transformers.generate_functions:none",
        device="cpu",
    )
    assert isinstance(core, TransformersCore)


def test_a_pickle_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path)
    weights = folder / "model.safetensors"
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelLoadError, match="safetensors"):
        load(options(folder))


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ("load_nothing", "must bring a generate function"),
        ("load_no_generator", "does not generate text"),
        ("load_one", "cannot be loaded"),
        ("load_too_much", "does not fit into the memory"),
        ("no_such", "does not exist"),
    ],
)
def test_what_a_loader_may_get_wrong(loader: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        create_core(model_path="here", loader=f"{__name__}:{loader}", device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="no cuda device"):
        choose_device(options(device="cuda"))
    assert choose_device(options(device="auto")) in ("cpu", "mps")


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device(options(device="auto", num_gpus=2)) == "cuda"
    with pytest.raises(ModelLoadError, match="NUM_GPUS=3, but torch sees 2"):
        choose_device(options(device="cuda", num_gpus=3))


def test_the_processor_computes_in_float32_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {"avx512_bf16": True, "avx512_fp16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_dtype(options(), "cpu") == torch.float32
    assert choose_dtype(options(dtype="bfloat16"), "cpu") == torch.bfloat16
    with pytest.raises(ModelLoadError, match="no instructions for float16"):
        choose_dtype(options(dtype="float16"), "cpu")


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ('{"torch_dtype": "bfloat16"}', torch.bfloat16),
        ('{"dtype": "float32", "model_type": "llama"}', torch.float16),
        ('{"torch_dtype": "float16", "model_type": "t5"}', torch.bfloat16),
        ("no json", torch.float16),
    ],
)
def test_a_gpu_computes_in_what_the_checkpoint_is(
    config: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    (tmp_path / "config.json").write_text(config)
    assert choose_dtype(options(tmp_path), "cuda") == dtype


def test_a_loader_is_told_no_more_than_it_needs() -> None:
    arguments = loader_arguments(options(), "cpu", torch.float32)
    assert arguments == {"dtype": torch.float32, "use_safetensors": True}
    trusting = loader_arguments(options(trust_remote_code=True), "cpu", torch.float32)
    assert trusting["trust_remote_code"] is True


@pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed")
def test_several_gpus_share_the_layers() -> None:
    asked = options(device="cuda", num_gpus=2, max_gpu_memory="16GiB")
    arguments = loader_arguments(asked, "cuda", torch.float16)
    assert arguments["device_map"] == "auto"
    assert arguments["max_memory"] == {0: "16GiB", 1: "16GiB"}


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_quantising_needs_its_library(quantize: str) -> None:
    with pytest.raises(MissingDependency, match="pip install bitsandbytes"):
        loader_arguments(options(quantize=quantize), "cpu", torch.float32)


def test_a_loader_that_does_not_quantise_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_need", lambda *_: None)
    monkeypatch.setattr(placement, "_quantization", lambda *_: None)
    asked = options(loader=f"{__name__}:load_no_generator", quantize="4bit")
    with pytest.raises(ModelLoadError, match="does not load weights in 4bit"):
        load(asked)
