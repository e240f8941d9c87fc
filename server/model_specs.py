"""What the operator says of each model: `LLM_MODEL` and its fellows, or `models.toml`.

[models."my-vicuna"]            # the name, also in LLM_MODEL
path = "/data/vicuna-13b.gguf"  # LLM_MODEL_PATH for this model
engine = "llama_cpp"            # LLM_ENGINE
adapter = "vicuna"              # LLM_ADAPTER
aliases = ["gpt-3.5-turbo"]
context_length = 4096           # MAX_POSITION_EMBEDDINGS
trust_remote_code = false       # its name in TRUST_REMOTE_CODE
[models."my-vicuna".engine_args] # ENGINE_ARGS: what the engine's options are called in its code
n_threads = 8
"""

from __future__ import annotations

import logging
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.catalog import CatalogEntry, catalog
from server.settings import MODEL_NAME, EngineName, Settings, SettingsError

logger = logging.getLogger(__name__)

BUILT_IN = "parlm-tiny"
ECHO = "echo"
PROXY = "proxyllm"
MODELS_DIR = Path(__file__).resolve().parent.parent / "models"


class ModelSpec(BaseModel):
    """One model as configured; None leaves a value to the settings or to the model's files."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str
    path: Path | None = None
    engine: EngineName = "auto"
    adapter: str | None = None
    aliases: tuple[str, ...] = ()
    context_length: int | None = Field(default=None, ge=16)
    engine_args: dict[str, object] = Field(default_factory=dict)
    trust_remote_code: bool = False


def model_specs(settings: Settings) -> list[ModelSpec]:
    """Return the configured models in order. Raises `SettingsError`."""
    tables = _read(settings)
    for name in tables.keys() - {*settings.llm_model}:
        logger.warning("%s: %r is not in LLM_MODEL and is not served", settings.models_file, name)
    for setting, key in (("llm_model_path", "path"), ("engine_args", "engine_args")):
        if getattr(settings, setting) and len(settings.llm_model) > 1:
            raise SettingsError(
                f"{setting.upper()} fits one model, but LLM_MODEL names "
                f"{len(settings.llm_model)}: give each its {key} in {settings.models_file}"
            )
    if unknown := set(settings.trust_remote_code) - {*settings.llm_model}:
        raise SettingsError(
            f"TRUST_REMOTE_CODE: {', '.join(sorted(unknown))} is not in LLM_MODEL; list the models "
            "of LLM_MODEL whose own code may run"
        )
    specs = [_spec(name, tables.get(name, {}), settings) for name in settings.llm_model]
    _check_aliases(specs, settings)
    return specs


def _read(settings: Settings) -> dict[str, dict[str, object]]:
    file = settings.models_file
    if file == Settings.model_fields["models_file"].default and not file.exists():
        return {}
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"MODELS_FILE: {file} is not valid TOML: {error}") from None
    except OSError as error:
        raise SettingsError(f"MODELS_FILE: {file} cannot be read: {error.strerror}") from None
    models = content.pop("models", {})
    if content or not isinstance(models, dict) or not all(map(_is_table, models.values())):
        raise SettingsError(f'MODELS_FILE: {file} must hold tables [models."NAME"]')
    return models


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _spec(name: str, table: dict[str, object], settings: Settings) -> ModelSpec:
    values: dict[str, object] = {
        "path": settings.llm_model_path,
        "engine": settings.llm_engine,
        "adapter": settings.llm_adapter,
        "context_length": settings.max_position_embeddings,
        "engine_args": settings.engine_args,
        "trust_remote_code": name in settings.trust_remote_code,
    }
    try:
        return ModelSpec(**{**values, **table, "name": name})
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        field = ".".join(map(str, item["loc"]))
        raise SettingsError(
            f"{settings.models_file}: models.{name}.{field}: {item['msg']}"
        ) from None


def _check_aliases(specs: list[ModelSpec], settings: Settings) -> None:
    taken = {spec.name for spec in specs}
    for spec in specs:
        for alias in spec.aliases:
            if alias in taken or not MODEL_NAME.fullmatch(alias):
                raise SettingsError(
                    f"{settings.models_file}: models.{spec.name}.aliases: {alias!r} is taken, "
                    "or is no model name"
                )
            taken.add(alias)


def models_folder(settings: Settings) -> Path:
    """Return the folder of downloaded weights."""
    return MODELS_DIR if settings.models_dir is None else settings.models_dir.expanduser()


def locate(spec: ModelSpec, folder: Path = MODELS_DIR) -> Path:
    """Return the file or folder of a model's weights. Raises `SettingsError` naming the fix.

    Without a path of its own a model lies in `folder` (`models_folder`) under its name, or the
    name the catalogue has for it.
    """
    if spec.path is not None:
        path = spec.path.expanduser()
        if not path.exists():
            raise SettingsError(
                f"LLM_MODEL_PATH, or the path of {spec.name} in MODELS_FILE: {path} does not "
                f"exist; set it to the GGUF file or the folder that holds the weights"
            )
        return path.resolve()
    if spec.name == BUILT_IN:
        is_gguf = spec.engine in ("auto", "llama_cpp")
        return MODELS_DIR / BUILT_IN / (f"{BUILT_IN}-q8_0.gguf" if is_gguf else "hf")
    entry = catalog().find(spec.name)
    for name in dict.fromkeys([spec.name, *([entry.name] if entry else [])]):
        for candidate in (folder / f"{name}.gguf", folder / name):
            if ".." not in Path(name).parts and candidate.exists():
                return candidate
    raise SettingsError(_missing(spec.name, entry, folder))


def _missing(name: str, entry: CatalogEntry | None, folder: Path) -> str:
    """Say where the weights of a model are not, and how to get them."""
    if entry is None and name.count("/") != 1:
        return (
            f"LLM_MODEL={name!r}: no weights found. Set LLM_MODEL_PATH to a GGUF file or a folder "
            "of safetensors (with several models: give each its path in models.toml), put them at "
            f"{folder / name}, or serve the built-in model with LLM_MODEL={BUILT_IN}. "
            "`parlm models --catalog` lists the models that parlm can download by name"
        )
    pulled = name if entry is None else entry.name
    is_begun = partial_folder(folder, pulled).exists()
    what = "The download was not finished" if is_begun else f"Its weights are not in {folder}"
    return (
        f"LLM_MODEL={name!r}: {what}. Run `parlm pull {pulled}`, or set LLM_MODEL_PATH to a GGUF "
        "file or a folder of safetensors"
    )


def partial_folder(models_dir: Path, name: str) -> Path:
    """Return where the download of a model is kept until it is whole; no model lies there."""
    return models_dir / ".partial" / name
