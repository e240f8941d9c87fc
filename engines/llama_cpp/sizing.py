"""How many slots, and how long, where the options leave that open: as many as the memory holds.

A cautious choice for the processor's memory only. Where layers go to a GPU its memory counts,
which is not looked at: llama.cpp then refuses what does not fit.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from engines.llama_cpp.config import DEFAULT_SLOTS, LlamaCppOptions

logger = logging.getLogger(__name__)

# A shorter context is of little use: rather let the machine swap than refuse every prompt.
SHORTEST_DEFAULT_CONTEXT = 512
# llama.cpp rounds the length of a slot up to this many tokens.
_STEP = 256
# The rest is for what is computed with, and for everybody else.
_USABLE_SHARE = 0.75

_MEMORY = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Size:
    """How many requests run at once, and the tokens each may hold."""

    n_slots: int
    context_length: int

    @property
    def tokens(self) -> int:
        """Tokens that all slots hold together."""
        return self.n_slots * self.context_length


def choose_size(
    options: LlamaCppOptions, trained: int, bytes_per_token: int, free: int | None
) -> Size:
    """Return the size of the memory for keys and values (KV cache).

    What an option says is kept. The others shrink until `free` bytes (None: unknown) can hold
    it: first the slots down to one, then the context. `trained` is the model's own context in
    tokens, and `bytes_per_token` what one of them takes.
    """
    wanted = Size(options.n_slots or DEFAULT_SLOTS, options.resolve_context_length(trained))
    if free is None or bytes_per_token < 1:
        return wanted
    room = int(max(free, 0) * _USABLE_SHARE) // bytes_per_token
    size = _shrink(wanted, options, room)
    if size.tokens > room or size != wanted:
        logger.warning(
            "%s: %d slots of %d tokens of context take %.1f GB beside the weights, and %.1f GB "
            "are free: %d of %d are used. LIMIT_MODEL_CONCURRENCY and MAX_POSITION_EMBEDDINGS "
            "choose otherwise",
            *(options.model_path, wanted.n_slots, wanted.context_length),
            *(wanted.tokens * bytes_per_token / 1e9, free / 1e9),
            *(size.n_slots, size.context_length),
        )
    return size


def _shrink(size: Size, options: LlamaCppOptions, room: int) -> Size:
    """Return what of a size fits into `room` tokens, or the least that may be chosen."""
    n_slots, length = size.n_slots, size.context_length
    if options.n_slots is None:
        n_slots = min(n_slots, max(room // length, 1))
    if options.context_length is None and n_slots * length > room:
        fits = room // n_slots // _STEP * _STEP
        length = min(length, max(fits, SHORTEST_DEFAULT_CONTEXT))
    return Size(n_slots, length)


def free_memory() -> int | None:
    """Return the bytes this process may still take, its container's limit included.

    What the system only keeps as a copy of files, a model's weights perhaps, counts as free.
    None where the system does not tell (it is not Linux).
    """
    try:
        fields = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return None
    limit = _free_in_container()
    return free if limit is None else min(free, limit)


def _free_in_container() -> int | None:
    """Return the bytes below the container's limit (cgroup v2); None without one."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(limit - used, 0) + int(counts["active_file"]) + int(counts["inactive_file"])
    except (OSError, ValueError, KeyError):
        return None
