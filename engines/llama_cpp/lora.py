"""LoRA adapters: checked before llama.cpp reads them, each refusal with a remedy.

Format: what llama.cpp's convert_lora_to_gguf.py writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engines.errors import ModelLoadError
from engines.gguf import read_gguf
from engines.llama_cpp.binding import Model
from engines.llama_cpp.config import Lora


def add_adapters(model: Model, adapters: Iterable[Lora]) -> None:
    """Add adapters to a model, before its contexts are opened. Raises `ModelLoadError`."""
    for adapter in adapters:
        path = Path(adapter.path).expanduser()
        check_adapter_file(path, model.metadata("general.architecture") or "")
        try:
            model.add_lora(str(path), adapter.scale)
        except ModelLoadError as error:
            raise ModelLoadError(
                f"llama.cpp cannot apply the LoRA adapter {path}: {error}. It must have been made "
                "for this very model: check lora in engine_args"
            ) from error


def check_adapter_file(path: Path, architecture: str) -> None:
    """Raise `ModelLoadError` unless the file is a LoRA adapter for this architecture."""
    if path.is_dir():
        raise ModelLoadError(
            f"{path} is a folder: convert the adapter in it with llama.cpp's "
            "convert_lora_to_gguf.py, and name that file as lora in engine_args"
        )
    metadata = read_gguf(path).metadata
    kind = metadata.get("general.type"), metadata.get("adapter.type")
    if kind != ("adapter", "lora"):
        raise ModelLoadError(
            f"{path} is no LoRA adapter but {kind[0] or 'a model'!r}: name an adapter as lora in "
            "engine_args, made by llama.cpp's convert_lora_to_gguf.py"
        )
    if (made_for := metadata.get("general.architecture")) != architecture:
        raise ModelLoadError(
            f"{path} is a LoRA adapter for models of the architecture {made_for!r}, but this one "
            f"is {architecture!r}: use the adapter's own base model, or leave it out of lora"
        )
    if "adapter.alora.invocation_tokens" in metadata:
        raise ModelLoadError(
            f"{path} is an activated LoRA (aLoRA), which counts only after certain tokens; this "
            "engine applies adapters to every token: leave it out of lora"
        )
