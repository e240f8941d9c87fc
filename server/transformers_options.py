"""What the transformers engine is told: the adapter's functions by name, and the GPU settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.base import Adapter, BaseChatAdapter, BaseLLMAdapter
from server.settings import Settings


def transformers_options(
    load_adapter: BaseLLMAdapter, chat_adapter: BaseChatAdapter, settings: Settings
) -> dict[str, Any]:
    """Return the options that no other engine has.

    The engine's child process builds the adapters again, so their classes must be there by name
    and take no arguments.
    """
    quantize = "4bit" if settings.quantize_4bit else "8bit" if settings.quantize_8bit else None
    files = [str(Path(file).resolve()) for file in settings.adapter_files]
    has_stream = (
        type(chat_adapter).get_generate_stream_func is not BaseChatAdapter.get_generate_stream_func
    )
    return {
        "loader": _reference(load_adapter, "loader"),
        # Not called here: such a function is imported with the libraries it needs.
        "stream": _reference(chat_adapter, "get_generate_stream_func") if has_stream else None,
        "run_first": tuple(("adapters.user_files:load_file", file) for file in files),
        "quantize": quantize,
        "num_gpus": settings.num_gpus,
        "max_gpu_memory": settings.max_gpu_memory,
        "cuda_visible_devices": settings.cuda_visible_devices,
    }


def _reference(adapter: Adapter, method: str) -> str:
    kind = type(adapter)
    return f"{kind.__module__}:{kind.__qualname__}.{method}"
