"""The options that several commands share, and the client they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from server.cli.client import Client
from server.settings import Settings, SettingsError, client_base_url, load_settings

EnvFile = Annotated[
    Path | None, typer.Option("--env-file", help="Settings file.", show_default=".env")
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", help="The server's URL.", show_default="from MODEL_SERVER"),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", help="Key to send.", show_default="the first of API_KEYS"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def read_settings(env_file: Path | None, **overrides: str | None) -> Settings:
    """Read `.env` or the file that was named. Raises `SettingsError`, also if that is missing."""
    if env_file is not None and not env_file.is_file():
        raise SettingsError(f"--env-file: there is no file {str(env_file)!r}")
    return load_settings(env_file or Path(".env"), **overrides)


def connect(settings: Settings, base_url: str | None, api_key: str | None) -> Client:
    """Make the client for these options; nothing is sent yet.

    The key of the settings goes to the server of the settings only: another server must not
    learn it. Raises `ClientError` for a URL that is none.
    """
    url = settings.base_url if base_url is None else _complete(base_url)
    if api_key is None and settings.api_keys and _origin(url) == _origin(settings.base_url):
        api_key = settings.api_keys[0].get_secret_value()
    return Client(url, api_key)


def _complete(base_url: str) -> str:
    """Take a URL with a path as it is, as the SDKs do; add scheme and `/v1` to a bare address."""
    try:
        if "://" in base_url and urlsplit(base_url).path.strip("/"):
            return base_url
        return client_base_url(base_url)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--base-url") from error


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
