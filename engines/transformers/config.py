"""The settings of the transformers engine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Device = Literal["auto", "cuda", "mps", "cpu"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["8bit", "4bit"]

# A token of context costs up to 0.8 MiB per slot in the 13B models of this project's families:
# a model's own 32k would ask for 100 GB. Longer contexts are a setting away.
LARGEST_DEFAULT_CONTEXT = 4096
_MEMORY = re.compile(r"[0-9]+(\.[0-9]+)?\s*([KMGT]i?)?B", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TransformersOptions:
    """How to load and run one model. Lengths are in tokens.

    `loader` names the function `(path, arguments) -> (model, tokenizer)` that loads it, and
    `stream` one that returns a generate function (`adapters.base.GenerateStream`) or None: with
    a generate function requests run through it, one at a time. Both as `references.resolve`
    reads them, after the pairs of function and argument in `run_first` have been called: how
    an adapter that is no installed package comes to exist in the child process.

    `n_slots` sequences decode together, each with `context_length` of its own, never more than
    the model was trained on (None: the model's, at most 4096). A step decodes one token for each
    and at most `prefill_chunk` tokens of prompts. `max_queue` requests may wait. `n_threads` None
    is one per physical core.

    `device` "auto" is CUDA, else MPS, else the processor. `dtype` "auto" is float32 on the
    processor, else the checkpoint's (float16 for one of float32). `quantize` needs bitsandbytes.
    With several `num_gpus` the layers are spread over them, which needs accelerate;
    `max_gpu_memory` bounds what each may hold of the weights ("16GiB");
    `cuda_visible_devices` ("0,1") says which there are. `trust_remote_code` lets code that lies
    beside the weights run with this program's rights.
    """

    model_path: str
    loader: str
    stream: str | None = None
    run_first: tuple[tuple[str, str], ...] = ()
    n_slots: int = 8
    context_length: int | None = None
    n_threads: int | None = None
    prefill_chunk: int = 512
    max_queue: int = 64
    device: Device = "auto"
    dtype: DType = "auto"
    quantize: Quantization | None = None
    num_gpus: int | None = None
    max_gpu_memory: str | None = None
    cuda_visible_devices: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("n_slots", "context_length", "n_threads", "prefill_chunk", "num_gpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        if self.max_queue < 0:
            raise ValueError(f"max_queue must not be negative, not {self.max_queue!r}")
        _check_choice("device", self.device, get_args(Device))
        _check_choice("dtype", self.dtype, get_args(DType))
        _check_choice("quantize", self.quantize, (None, *get_args(Quantization)))
        if self.max_gpu_memory is not None and not _MEMORY.fullmatch(self.max_gpu_memory.strip()):
            raise ValueError(f"max_gpu_memory must be a size as 16GiB, not {self.max_gpu_memory!r}")

    def resolve_context_length(self, trained: int) -> int:
        """Return the tokens one request may hold, for a model trained on `trained` of them."""
        return min(self.context_length or LARGEST_DEFAULT_CONTEXT, trained)


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")
