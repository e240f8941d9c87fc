"""Put the server together: settings -> models (adapter and engine each) -> a table of them.

The one file that knows all three layers; it reads from top to bottom like a recipe.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Collection
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

from adapters import chat_adapters, find_adapters, load_file
from adapters.base import BaseChatAdapter
from adapters.errors import UnknownAdapter
from engines.base import Engine
from engines.errors import InvalidOption
from engines.model_files import describe
from engines.registry import ENGINES, create_engine
from engines.types import ModelDescription, SamplingParams
from server.catalog import CatalogEntry, catalog
from server.engine_choice import EngineChoice, choose_engine, memory_warning, weights_of
from server.machine import Machine, look_at_machine
from server.model_specs import ECHO, PROXY, ModelSpec, locate, model_specs, models_folder
from server.models import ModelTable, ServedModel
from server.name_check import check_weights
from server.outlook import nearest
from server.settings import Settings, SettingsError
from server.transformers_options import transformers_options

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
    specs, machine = model_specs(settings), look_at_machine(settings)
    models = [_build(spec, settings, machine) for spec in specs]
    _mention_unused(settings, {model.engine.name for model in models})
    return ModelTable(models)


def _build(spec: ModelSpec, settings: Settings, machine: Machine) -> ServedModel:
    entry = catalog().find(spec.name)
    description = _describe(spec, settings)
    if entry is not None:
        check_weights(entry, spec, description)
        spec = _with_adapter(spec, description, entry)
    choice = _choose(spec, description, machine, settings)
    adapter = _adapter(spec, description)
    options = _engine_options(choice.engine, spec, description, settings)
    return ServedModel(
        name=spec.name,
        engine=_engine(choice.engine, options, spec, settings),
        adapter=adapter,
        description=description,
        reason=choice.reason,
        fingerprint=_fingerprint(choice.engine, description, adapter, options),
        created=_created(description),
        aliases=spec.aliases,
    )


def _describe(spec: ModelSpec, settings: Settings) -> ModelDescription:
    if spec.name in (ECHO, PROXY) or spec.engine == "proxy":
        return ModelDescription(name=spec.name)
    return describe(spec.name, locate(spec, models_folder(settings)))


def _choose(
    spec: ModelSpec, description: ModelDescription, machine: Machine, settings: Settings
) -> EngineChoice:
    quant = "NF4" if settings.quantize_4bit else "INT8" if settings.quantize_8bit else None
    weights = weights_of(description, quant)
    alternative = nearest(catalog().find(spec.name), machine, catalog())
    choice = choose_engine(spec, weights, machine, ENGINES, alternative)
    if (warning := memory_warning(choice.engine, weights, machine)) is not None:
        logger.warning("%s: %s", spec.name, warning)
    return choice


def _with_adapter(spec: ModelSpec, description: ModelDescription, entry: CatalogEntry) -> ModelSpec:
    """Take the catalogue's adapter, unless LLM_ADAPTER or an adapter of the user's decides."""
    if spec.adapter is not None or entry.adapter is None:
        return spec
    try:
        named = chat_adapters.by_name(entry.adapter)
    except UnknownAdapter:
        return spec
    matching = find_adapters(spec.name, description.path)
    if any(adapter.priority > named.priority for adapter in matching):
        return spec
    return spec.model_copy(update={"adapter": named.name})


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
    options: dict[str, Any] = {
        "model_path": description.path,
        "n_slots": settings.limit_model_concurrency,
        "max_queue": settings.max_queue,
        "context_length": spec.context_length,
    }
    if engine == "transformers":
        load_adapter, chat_adapter = find_adapters(spec.name, description.path, spec.adapter)
        options |= transformers_options(load_adapter, chat_adapter, settings)
        options["trust_remote_code"] = spec.trust_remote_code
    else:
        options["n_threads"] = settings.llama_cpp_threads
        options["n_gpu_layers"] = settings.llama_cpp_gpu_layers
        options["cache_dir"] = str(settings.xdg_cache_home / "parlm")
    given = {name: value for name, value in options.items() if value is not None}
    return given | spec.engine_args


def _fingerprint(
    engine: str, description: ModelDescription, adapter: BaseChatAdapter, options: dict[str, Any]
) -> str:
    digest = hashlib.sha256()
    counting = sorted((k, v) for k, v in options.items() if k != "cache_dir")
    about = (engine, _version(engine), type(adapter).__qualname__, counting)
    digest.update(repr(about).encode())
    digest.update((description.chat_template or "").encode())
    adapters = [Path(lora["path"]) for lora in options.get("lora", ())]
    for file in [*_weight_files(description), *filter(Path.is_file, adapters)]:
        digest.update(weights_digest(file))
    return f"fp_{digest.hexdigest()[:12]}"


def _weight_files(description: ModelDescription) -> list[Path]:
    path = Path(description.path)
    if not description.path:
        return []
    return [path] if path.is_file() else sorted(path.glob("*.safetensors"))


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
    distribution = {"llama_cpp": "llama-cpp-python", "transformers": "transformers"}.get(
        engine, "parlm"
    )
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def _created(description: ModelDescription) -> int:
    """When the weights were written, in Unix seconds; now for a model without files."""
    if description.path:
        return int(Path(description.path).stat().st_mtime)
    return int(time.time())


def _mention_unused(settings: Settings, engines: Collection[str]) -> None:
    """Say so when a setting is given that no running engine reads."""
    unused = ["proxy_api_key", "proxy_server_url", "proxyllm_backend"]
    if "transformers" not in engines:
        unused += ["quantize_8bit", "quantize_4bit", "num_gpus", "max_gpu_memory"]
        unused.append("cuda_visible_devices")
    for name in unused:
        if getattr(settings, name):
            logger.warning("%s is set, but no engine that runs uses it", name.upper())
