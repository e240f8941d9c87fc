"""From a ChatGLM folder to a model and its tokenizer, or a sentence that says what would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch  # noqa: TID253 - imported only when a ChatGLM model is loaded

from engines.chatglm.config import V1Config, V2Config, read_config
from engines.chatglm.modeling import ChatGLM
from engines.chatglm.tokenizer import (
    GMASK,
    V1_BOS,
    V2_BOS,
    Tokenizer,
    read_v1_tokenizer,
    read_v2_tokenizer,
)
from engines.chatglm.weights import check_tensors, find_weights, read_tensors
from engines.errors import ModelLoadError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# What asks for something these models cannot do here, and the setting behind it.
_REFUSED = {
    "quantization_config": "are not loaded in 8 or 4 bits: unset QUANTIZE_8bit and QUANTIZE_4bit",
    "device_map": "run on one device: unset NUM_GPUS and MAX_GPU_MEMORY",
}


def load(folder: Path, arguments: Mapping[str, Any]) -> tuple[Any, Tokenizer]:
    """Load the model of a folder onto the CPU; see `engines.chatglm.load`."""
    for name, refusal in _REFUSED.items():
        if arguments.get(name) is not None:
            raise ModelLoadError(f"{folder}: ChatGLM models {refusal}")
    dtype = arguments.get("dtype") or arguments.get("torch_dtype") or torch.float32
    if dtype not in DTYPES:
        raise ModelLoadError(f"{folder}: dtype {dtype} is none of {', '.join(map(str, DTYPES))}")
    config = read_config(folder)
    files = find_weights(folder)
    if isinstance(config, V1Config):
        v1_tokenizer = read_v1_tokenizer(folder, config)
        return _load_v1(config, files, v1_tokenizer, dtype), v1_tokenizer
    tokenizer = read_v2_tokenizer(folder, config)
    return _load_v2(config, files, tokenizer, dtype), tokenizer


def _load_v1(
    config: V1Config, files: Sequence[Path], tokenizer: Tokenizer, dtype: torch.dtype
) -> ChatGLM:
    with torch.device("meta"):  # shapes alone: the weights are put in one by one
        model = ChatGLM(config, _ids(tokenizer, GMASK, V1_BOS))
    check_tensors(files, {name: tuple(t.shape) for name, t in model.state_dict().items()})
    for file in files:
        # A copy, because the tensors of the file are the file itself, mapped into memory.
        tensors = {name: tensor.to(dtype, copy=True) for name, tensor in read_tensors(file)}
        model.load_state_dict(tensors, strict=False, assign=True)
    model.requires_grad_(False).eval()
    return model


def _load_v2(
    config: V2Config, files: Sequence[Path], tokenizer: Tokenizer, dtype: torch.dtype
) -> Any:
    # Here, because the first generation does without transformers.
    from engines.chatglm.glm import ChatGLM2, build, expected_shapes

    check_tensors(files, expected_shapes(config))
    weights = {name: tensor for file in files for name, tensor in read_tensors(file)}
    prefix_ids = _ids(tokenizer, GMASK, V2_BOS)
    stop_token_ids = tuple(sorted(tokenizer.end_tokens))
    model = ChatGLM2(
        build(config, weights, dtype), config.context_length, prefix_ids, stop_token_ids
    )
    return model.requires_grad_(False).eval()


def _ids(tokenizer: Tokenizer, *names: str) -> tuple[int, ...]:
    ids = [tokenizer.special_id(name) for name in names]
    return tuple(token for token in ids if token is not None)
