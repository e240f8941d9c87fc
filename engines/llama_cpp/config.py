"""The settings of the llama.cpp engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

Speculation = Literal["prompt_lookup"]
KvType = Literal["f16", "f32", "q8_0", "q4_0"]
Pooling = Literal["mean", "cls", "last"]

# Numbers in a block, and bytes it takes; ggml keeps a scale beside the 32 of a quantised one.
KV_BLOCKS: Mapping[KvType, tuple[int, int]] = {
    **{"f16": (1, 2), "f32": (1, 4)},
    **{"q8_0": (32, 34), "q4_0": (32, 18)},
}
DEFAULT_SLOTS = 4
# A token of context costs up to 0.8 MiB per slot in the 13B models of this project's families:
# a model's own 32k would ask for 100 GB. Longer contexts are a setting away.
LARGEST_DEFAULT_CONTEXT = 4096
# Of a prompt whose log-probabilities are wanted, so many tokens are computed in a step: a row of
# logits takes up to a megabyte.
PROMPT_OUTPUTS = 32
_COUNTS = (
    "n_slots",
    "context_length",
    "n_threads",
    "n_batch",
    "prefill_chunk",
    "n_cells",
    "draft_tokens",
    "draft_slots",
)


class Lora(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A LoRA adapter in a GGUF file, and how strongly it counts: 1 is as it was trained.

    A struct, so that a misspelt key in a configuration is no silent default.
    """

    path: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class LlamaCppOptions:
    """How to load and run one GGUF model. Lengths and sizes are in tokens.

    `model_path` is the GGUF file, or the first part of a split one.

    `n_slots` requests run at once (None: 4), each with `context_length` of its own, never more
    than the model was trained on (None: the model's, at most 4096); where one is None and the
    memory is short, it is less (`sizing`). `max_queue` requests may wait.

    A step decodes one token for every running request and at most `prefill_chunk` tokens of
    prompts, or as many as make it last `step_seconds`; `n_batch` is the bound of both together
    (None: their sum).

    `n_threads` None is measured at the first start (`thread_choice`) and kept in `cache_dir`
    (None: nowhere, and measured at each start). `n_gpu_layers` -1 is all that a GPU build can
    take. `flash_attn` None leaves it to llama.cpp on a GPU and is off without one: there it is
    hardly faster, but its rounding lets an answer depend on what runs beside it.

    `kv_type` is the format of keys and values in memory: q8_0 takes 53 % and q4_0 28 % of f16, at
    some loss of precision; quantised ones need flash attention, which they switch on. The `lora`
    adapters are added to the weights for every request, without being merged into them. `pooling`
    is how a text's embedding is made of those of its tokens: their mean, the first one's (cls) or
    the last one's; None is the model's own way, else the mean.

    `kv_unified` keeps all slots in one buffer: prefixes are shared without copying, but attention
    scans every slot (1.7 times the CPU time at 16 slots). It can then be smaller than all slots
    together: `n_cells` tokens in all, for which requests wait.

    `speculation` says how tokens are guessed ahead (None: not at all), `draft_tokens` of them for
    each of at most `draft_slots` requests: more answers at once leave no computing power for it.
    """

    model_path: str
    n_slots: int | None = None
    context_length: int | None = None
    n_threads: int | None = None
    n_batch: int | None = None
    prefill_chunk: int = 512
    n_gpu_layers: int = -1
    use_mmap: bool = True
    use_mlock: bool = False
    max_queue: int = 64
    kv_unified: bool = False
    n_cells: int | None = None
    step_seconds: float = 0.5
    speculation: Speculation | None = None
    draft_tokens: int = 4
    draft_slots: int = 2
    flash_attn: bool | None = None
    kv_type: KvType = "f16"
    lora: tuple[Lora, ...] = ()
    pooling: Pooling | None = None
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        if self.max_queue < 0:
            raise ValueError(f"max_queue must not be negative, not {self.max_queue!r}")
        if self.step_seconds <= 0:
            raise ValueError(f"step_seconds must be above 0, not {self.step_seconds!r}")
        if self.n_cells is not None and not self.kv_unified:
            raise ValueError("n_cells needs kv_unified: else each slot has its own memory")
        if self.speculation not in (None, "prompt_lookup"):
            raise ValueError(f"speculation can be prompt_lookup, not {self.speculation!r}")
        if self.n_gpu_layers < -1:
            raise ValueError(f"n_gpu_layers must be at least -1 (all), not {self.n_gpu_layers!r}")
        if self.kv_is_quantised and self.flash_attn is False:
            raise ValueError(
                f"kv_type {self.kv_type} needs flash attention, because llama.cpp computes with "
                "quantised values in no other way: leave flash_attn out, or keep kv_type f16"
            )
        for lora in self.lora:
            if not math.isfinite(lora.scale):
                raise ValueError(f"lora: the scale of {lora.path} must be a number")
        n_slots = self.n_slots or DEFAULT_SLOTS
        at_least = n_slots + self.max_drafted(n_slots)
        if self.n_batch is not None and self.n_batch <= at_least:
            raise ValueError(
                f"n_batch ({self.n_batch}) must be larger than {at_least}: a step holds one token "
                f"for each of {n_slots} slots, the guessed ones, and prompt tokens besides"
            )

    @property
    def kv_is_quantised(self) -> bool:
        """Whether keys and values are kept in blocks with a common scale."""
        return KV_BLOCKS[self.kv_type][0] > 1

    def kv_bytes(self, n_numbers: int) -> int:
        """Return the bytes that so many numbers of keys and values take."""
        numbers, size = KV_BLOCKS[self.kv_type]
        return n_numbers * size // numbers

    def batch_size(self, n_slots: int) -> int:
        """Return the tokens one step may hold."""
        return self.n_batch or n_slots + self.max_drafted(n_slots) + self.prefill_chunk

    def max_outputs(self, n_slots: int) -> int:
        """Return for how many tokens one step may have logits."""
        return n_slots + self.max_drafted(n_slots) + PROMPT_OUTPUTS

    def max_drafted(self, n_slots: int) -> int:
        """Return how many guessed tokens one step may hold."""
        return min(self.draft_slots, n_slots) * self.draft_tokens if self.speculation else 0

    def resolve_context_length(self, trained: int) -> int:
        """Return the tokens one request may hold, for a model trained on `trained` of them."""
        return min(self.context_length or LARGEST_DEFAULT_CONTEXT, trained)
