"""Settings from the environment and `.env`: the only place that reads either.

`.env` is data: `KEY=value` lines from the file in the working directory, never expanded, never
searched for further up. Names are not case-sensitive. `.env.template` lists every one.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "vllm", "llama_cpp", "transformers", "proxy"]
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.:/+-]{0,127}")


class SettingsError(Exception):
    """A setting is wrong. The message names it and says what would be right."""


class Settings(BaseSettings):
    """Everything an operator can set, typed and checked at start."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        case_sensitive=False,
        extra="ignore",
        frozen=True,
        protected_namespaces=(),
    )

    llm_model: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("parlm-tiny",), description="Models to serve, comma-separated; first is default."
    )
    model_server: str = Field(
        default="127.0.0.1:8000",
        description="Where the server listens: host:port, with or without scheme.",
    )
    llm_engine: EngineName = Field(
        default="auto", description="auto, llama_cpp, transformers; vllm and proxy are coming."
    )
    llm_model_path: Path | None = Field(
        default=None, description="GGUF file or folder of weights for LLM_MODEL."
    )
    llm_adapter: str | None = Field(
        default=None, description="Chat adapter by name, instead of matching the model."
    )
    adapter_files: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Python files with adapters of your own. Full-trust code."
    )
    models_file: Path = Field(
        default=Path("models.toml"), description="Details per model; optional."
    )
    models_dir: Path | None = Field(
        default=None, description="Folder of downloaded weights; default is models/ of parlm."
    )
    hf_endpoint: str = Field(
        default="https://huggingface.co", description="Where `parlm pull` downloads, or a mirror."
    )
    hf_token: SecretStr | None = Field(
        default=None, description="Hugging Face token, for models with a licence to accept."
    )
    trust_remote_code: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Models of LLM_MODEL whose own Python code may run."
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="Keys that clients send as Bearer token; required to listen wider."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Further Host names to answer to on a loopback address."
    )
    limit_model_concurrency: int | None = Field(
        default=None, ge=1, le=1024, description="Requests per model that run at the same time."
    )
    max_queue: int = Field(
        default=256, ge=0, le=100_000, description="Requests per model that may wait; then 503."
    )
    max_position_embeddings: int | None = Field(
        default=None,
        ge=16,
        description="Context length in tokens; default is the model's own, at most 4096.",
    )
    llama_cpp_threads: int | None = Field(
        default=None, ge=1, le=512, description="CPU threads of llama.cpp; default is measured."
    )
    llama_cpp_gpu_layers: int | None = Field(
        default=None, ge=-1, description="Layers on the GPU; default all where there is one."
    )
    max_body_bytes: int = Field(
        default=8 * 2**20, ge=1024, description="Largest request body, in bytes; then 413."
    )
    header_hold: float = Field(
        default=1.0, ge=0, le=60, description="Seconds to wait for a first token with the status."
    )
    sse_ping_seconds: float = Field(
        default=15.0, gt=0, le=3600, description="Seconds between keep-alive comments in a stream."
    )
    shutdown_timeout: int = Field(
        default=30, ge=0, description="Seconds that running answers get at shutdown."
    )
    engine_args: Annotated[dict[str, object], NoDecode] = Field(
        default={}, description="Options of the engine as a JSON object, over other settings."
    )
    xdg_cache_home: Path = Field(
        default=Path("~/.cache"), description="Where what was measured is kept, in a folder parlm."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error. Prompts are never logged."
    )
    proxy_api_key: SecretStr | None = Field(default=None, description="Key of the upstream.")
    proxy_server_url: str | None = Field(
        default=None, description="Upstream: base URL or full chat/completions URL."
    )
    proxyllm_backend: str | None = Field(
        default=None, description="The upstream's name of the model."
    )
    quantize_8bit: bool = Field(default=False, description="Load weights in 8 bits.")
    quantize_4bit: bool = Field(default=False, description="Load weights in 4 bits; wins over 8.")
    num_gpus: int | None = Field(default=None, ge=1, description="GPUs to use.")
    max_gpu_memory: str | None = Field(
        default=None,
        pattern=r"(?i)^\s*[0-9]+(\.[0-9]+)?\s*([kmgt]i?)?b\s*$",
        description="Memory per GPU, e.g. 16Gib.",
    )
    cuda_visible_devices: str | None = Field(default=None, description="GPUs by number: 0,1.")

    @field_validator(
        *("llm_model", "adapter_files", "trust_remote_code", "api_keys", "allowed_hosts"),
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("engine_args", mode="before")
    @classmethod
    def _read_object(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f'not a JSON object such as {{"n_threads": 4}}: {error}') from None

    @field_validator("llm_model")
    @classmethod
    def _check_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("name at least one model, e.g. parlm-tiny")
        for name in names:
            if not MODEL_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a model name: letters, digits and . _ - : / +")
        if len(set(names)) != len(names):
            raise ValueError("a model is named twice")
        return names

    @field_validator("hf_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{value!r} is not an address such as https://huggingface.co")
        return value.rstrip("/")

    @field_validator("model_server")
    @classmethod
    def _check_server(cls, value: str) -> str:
        _parse_server(value)
        return value

    def check_exposure(self) -> None:
        """Refuse to serve beyond this machine without keys. Raises `SettingsError`.

        For the server only: a client may well have the URL of a remote one in MODEL_SERVER.
        """
        if self.host not in LOOPBACK_HOSTS and not self.api_keys:
            raise SettingsError(
                f"MODEL_SERVER={self.model_server!r} listens beyond this machine, which needs "
                "API_KEYS: set API_KEYS to one or more secret keys, or MODEL_SERVER to 127.0.0.1"
            )

    @property
    def host(self) -> str:
        """The address to listen on."""
        return _parse_server(self.model_server)[0]

    @property
    def port(self) -> int:
        """The port to listen on."""
        return _parse_server(self.model_server)[1]

    @property
    def base_url(self) -> str:
        """What a client uses: `http://127.0.0.1:8000/v1`."""
        return client_base_url(self.model_server)


def _parse_server(value: str) -> tuple[str, int]:
    """Split `host:port`, with or without scheme; the port defaults to 8000."""
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{value!r} is not an address such as 127.0.0.1:8000") from error
    is_number = host is not None and host.isdigit()  # a bare port, which would be a host name
    if not host or is_number or port == 0 or parts.scheme not in {"http", "https"}:
        raise ValueError(f"{value!r} is not an address such as 127.0.0.1:8000")
    return host, 8000 if port is None else port


def client_base_url(model_server: str) -> str:
    """Return the base URL, ending in `/v1`, that a client of MODEL_SERVER uses."""
    url = model_server if "://" in model_server else f"http://{model_server}"
    parts = urlsplit(url)
    host, port = _parse_server(model_server)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    location = f"[{host}]" if ":" in host else host
    if parts.scheme == "http" or parts.port is not None:
        location += f":{port}"
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{location}{path if path.endswith('/v1') else path + '/v1'}"


def load_settings(env_file: Path | None = Path(".env"), **overrides: object) -> Settings:
    """Read the settings. Raises `SettingsError` naming each wrong one and the fix."""
    if env_file is not None and env_file.exists():
        _check_unknown(dotenv_values(env_file, interpolate=False), env_file)
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(_env_file=env_file, **given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError("\n".join(_describe(error))) from None


def _check_unknown(names: Iterable[str], env_file: Path) -> None:
    """Refuse what is probably a misspelt setting; mention what is none of ours."""
    known = [field.upper() for field in Settings.model_fields]
    for name in names:
        if name.upper() in known:
            continue
        if close := difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.85):
            raise SettingsError(f"{env_file}: {name} is not a setting; did you mean {close[0]}?")
        logger.info("%s: %s is not a setting of parlm and is ignored", env_file, name)


def _describe(error: ValidationError) -> Iterable[str]:
    for item in error.errors(include_url=False, include_input=False):
        name = str(item["loc"][0]).upper() if item["loc"] else ""
        message = item["msg"].removeprefix("Value error, ")
        yield f"{name}: {message}" if name else message
