"""Where a model goes and in what numbers: device, dtype, and the loader's arguments for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from engines.errors import MissingDependency, ModelLoadError
from engines.transformers.config import TransformersOptions

# Their activations exceed what float16 can hold (transformers' notes on T5 and its issue 4586).
_TOO_LARGE_FOR_FLOAT16 = frozenset({"t5", "mt5", "umt5", "longt5"})


def choose_device(options: TransformersOptions) -> str:
    """Return `cuda`, `mps` or `cpu`. Raises `ModelLoadError` for one that is not there."""
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    device: str = options.device
    if device == "auto":
        device = next((name for name, is_there in has.items() if is_there), "cpu")
    if not has.get(device, True):
        raise ModelLoadError(
            f"this machine has no {device} device that torch {torch.__version__} can use"
        )
    n_gpus = options.num_gpus or 1
    if device == "cuda" and n_gpus > torch.cuda.device_count():
        raise ModelLoadError(
            f"NUM_GPUS={n_gpus}, but torch sees {torch.cuda.device_count()} of them"
        )
    return device


def choose_dtype(options: TransformersOptions, device: str) -> torch.dtype:
    """Return the dtype of the weights in memory. Raises `ModelLoadError` for one that is slow.

    A processor without instructions for a half-precision format computes in it more slowly than
    in float32.
    """
    if options.dtype != "auto":
        dtype = getattr(torch, options.dtype)
        if device == "cpu" and dtype != torch.float32 and not _computes_natively(dtype):
            raise ModelLoadError(
                f"this processor has no instructions for {options.dtype}, which would be slower "
                "than float32: leave dtype out"
            )
        return dtype
    if device == "cpu":
        return torch.float32
    config = _read_config(Path(options.model_path))
    stored = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    has_bfloat16 = device != "cuda" or torch.cuda.is_bf16_supported()
    if stored == "bfloat16" and has_bfloat16:
        return torch.bfloat16
    if config.get("model_type") in _TOO_LARGE_FOR_FLOAT16:
        return torch.bfloat16 if has_bfloat16 else torch.float32
    return torch.float16


def loader_arguments(
    options: TransformersOptions, device: str, dtype: torch.dtype
) -> dict[str, Any]:
    """Return what the loader hands to `from_pretrained`. Raises `MissingDependency`."""
    arguments: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    # Loaders written for DB-GPT name it themselves: it may not be given twice.
    if options.trust_remote_code:
        arguments["trust_remote_code"] = True
    if options.quantize is not None:
        _need("bitsandbytes", "loads weights in 8 or 4 bits")
        arguments["quantization_config"] = _quantization(options.quantize, dtype)
        arguments["device_map"] = {"": 0 if device == "cuda" else device}
    if device == "cuda" and (options.max_gpu_memory or (options.num_gpus or 1) > 1):
        arguments["device_map"] = "auto"
        # Only the GPUs: what does not fit there is refused rather than run from the processor.
        room = options.max_gpu_memory
        arguments["max_memory"] = {
            gpu: room or torch.cuda.get_device_properties(gpu).total_memory
            for gpu in range(options.num_gpus or 1)
        }
    if "device_map" in arguments:
        _need("accelerate", "places the weights")
    return arguments


def _quantization(kind: str, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    # NF4: made for weights that are normally distributed (QLoRA, arXiv 2305.14314, section 3).
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _need(library: str, what_for: str) -> None:
    if find_spec(library) is None:
        raise MissingDependency(
            "transformers", library, f"it {what_for}; run pip install {library}"
        )


def _computes_natively(dtype: torch.dtype) -> bool:
    suffix = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    capabilities: Mapping[str, object] = torch.cpu.get_capabilities()
    return any(name.endswith(suffix) and value for name, value in capabilities.items())


def _read_config(folder: Path) -> dict[str, Any]:
    """Return a model's config.json; empty if it has none, which its loader may do without."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
