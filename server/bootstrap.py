"""Put the server together: settings -> models (adapter and engine each) -> a table of them.

The one file that knows all three layers; it reads from top to bottom like a recipe.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

from adapters import find_adapters, load_file
from adapters.base import BaseChatAdapter
from engines.base import Engine
from engines.errors import InvalidOption
from engines.model_files import describe
from engines.registry import create_engine
from engines.types import ModelDescription, SamplingParams
from server.model_specs import ECHO, PROXY, ModelSpec, locate, model_specs
from server.models import ModelTable, ServedModel
from server.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

FINGERPRINT_BLOCKS = 16
FINGERPRINT_BYTES = 2**16
"""Of a weights file, this many blocks of so many bytes, evenly spread, are fingerprinted: to read
all of a large one would take minutes, and its head is the same for every fine-tune."""


def build_models(settings: Settings) -> ModelTable:
    """Build every configured model; none is started.

    Raises `SettingsError`, `AdapterError` or `EngineError`, each naming what to change.
    """
    for file in settings.adapter_files:
        load_file(file)
    _mention_unused(settings)
    return ModelTable([_build(spec, settings) for spec in model_specs(settings)])


def _build(spec: ModelSpec, settings: Settings) -> ServedModel:
    description = _describe(spec)
    adapter = _adapter(spec, description)
    engine_name, reason = choose_engine(spec, description)
    options = _engine_options(engine_name, spec, description, settings)
    return ServedModel(
        name=spec.name,
        engine=_engine(engine_name, options, spec, settings),
        adapter=adapter,
        description=description,
        reason=reason,
        fingerprint=_fingerprint(engine_name, description, adapter, options),
        created=_created(description),
        aliases=spec.aliases,
    )


def _describe(spec: ModelSpec) -> ModelDescription:
    if spec.name == PROXY or spec.engine == "proxy":
        raise SettingsError(
            f"LLM_MODEL={spec.name!r}: the proxy engine is not in this version of parlm"
        )
    if spec.name == ECHO:
        return ModelDescription(name=ECHO)
    return describe(spec.name, locate(spec))


def _adapter(spec: ModelSpec, description: ModelDescription) -> BaseChatAdapter:
    _, chat_adapter = find_adapters(spec.name, description.path, spec.adapter)
    adapter = chat_adapter.for_model(description)
    known = {field.name for field in fields(SamplingParams)}
    if unknown := set(adapter.sampling_defaults) - known:
        raise SettingsError(
            f"the adapter {adapter.name!r} has sampling_defaults for {', '.join(sorted(unknown))}, "
            "which are no sampling parameters"
        )
    return adapter


def choose_engine(spec: ModelSpec, description: ModelDescription) -> tuple[str, str]:
    """Return the engine's name and the reason for it. Raises `SettingsError`."""
    if spec.name == ECHO:
        return "echo", "the model 'echo' repeats what it is told"
    if spec.engine not in ("auto", "llama_cpp"):
        raise SettingsError(
            f"LLM_ENGINE={spec.engine!r} is not in this version of parlm; use auto or llama_cpp"
        )
    if description.format not in ("gguf", "ggml"):
        raise SettingsError(
            f"LLM_MODEL_PATH: {description.path} holds safetensors, which no engine of this "
            "version runs; give it a GGUF file"
        )
    if spec.engine == "llama_cpp":
        return "llama_cpp", "LLM_ENGINE names it"
    if description.format == "ggml":
        return "llama_cpp", "the weights are a GGML file, which is converted to GGUF once"
    return "llama_cpp", "the weights are a GGUF file"


def _engine(engine: str, options: dict[str, Any], spec: ModelSpec, settings: Settings) -> Engine:
    try:
        return create_engine(engine, **options)
    except InvalidOption as error:
        is_setting = spec.engine_args == settings.engine_args
        source = f"{settings.models_file}: models.{spec.name}.engine_args"
        raise SettingsError(
            f"{'ENGINE_ARGS' if is_setting else source}: {error} (of the engine {engine!r})"
        ) from None


def _engine_options(
    engine: str, spec: ModelSpec, description: ModelDescription, settings: Settings
) -> dict[str, Any]:
    """Return the options of a model's engine: of the settings, then of its `engine_args`."""
    if "model_path" in spec.engine_args:
        raise SettingsError(
            f"engine_args of {spec.name}: model_path is the setting LLM_MODEL_PATH, or path in "
            f"{settings.models_file}"
        )
    if engine == "echo":
        return dict(spec.engine_args)
    trained = description.context_length
    if spec.context_length is not None and 0 < trained < spec.context_length:
        logger.warning(
            "MAX_POSITION_EMBEDDINGS=%d, but %s was trained on %d tokens: those are used",
            spec.context_length,
            spec.name,
            trained,
        )
    options = {
        "model_path": description.path,
        "n_slots": settings.limit_model_concurrency,
        "max_queue": settings.max_queue,
        "context_length": spec.context_length,
        "n_threads": settings.llama_cpp_threads,
        "n_gpu_layers": settings.llama_cpp_gpu_layers,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return given | spec.engine_args


def _fingerprint(
    engine: str, description: ModelDescription, adapter: BaseChatAdapter, options: dict[str, Any]
) -> str:
    digest = hashlib.sha256()
    about = (engine, _version(engine), type(adapter).__qualname__, sorted(options.items()))
    digest.update(repr(about).encode())
    digest.update((description.chat_template or "").encode())
    adapters = [lora["path"] for lora in options.get("lora", ())]
    for path in filter(Path.is_file, map(Path, [description.path, *adapters])):
        digest.update(weights_digest(path))
    return f"fp_{digest.hexdigest()[:12]}"


def weights_digest(path: Path) -> bytes:
    """Return a digest of a file's size and of samples of its content."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(FINGERPRINT_BLOCKS):
            file.seek(size * number // FINGERPRINT_BLOCKS)
            digest.update(file.read(FINGERPRINT_BYTES))
    return digest.digest()


def _version(engine: str) -> str:
    distribution = {"llama_cpp": "llama-cpp-python"}.get(engine, "parlm")
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def _created(description: ModelDescription) -> int:
    """When the weights were written, in Unix seconds; now for a model without files."""
    if description.path:
        return int(Path(description.path).stat().st_mtime)
    return int(time.time())


def _mention_unused(settings: Settings) -> None:
    """Say so when a setting is given that nothing in this version reads."""
    unused = (
        "proxy_api_key",
        "proxy_server_url",
        "proxyllm_backend",
        "quantize_8bit",
        "quantize_4bit",
        "num_gpus",
        "max_gpu_memory",
        "cuda_visible_devices",
    )
    for name in unused:
        if getattr(settings, name):
            logger.warning("%s is set, but no engine of this version uses it", name.upper())
