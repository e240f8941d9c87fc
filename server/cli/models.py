"""`parlm models`: what the running server offers, else what is configured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from server.cli import terminal
from server.cli.catalog import show_catalog
from server.cli.client import Client, ClientError, ModelInfo, NoServer, ServerError
from server.cli.options import ApiKey, AsJson, BaseUrl, EnvFile, connect, read_settings


def models(
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
    env_file: EnvFile = None,
    is_catalog: Annotated[
        bool, typer.Option("--catalog", help="List the models parlm can download instead.")
    ] = False,
) -> None:
    """List the models of the running server, or the configured ones if none is running."""
    settings = read_settings(env_file)
    if is_catalog:
        show_catalog(settings, as_json=as_json)
        return
    is_running, infos = True, []
    try:
        with connect(settings, base_url, api_key) as client:
            url = client.base_url
            infos = list_models(client)
    except NoServer as error:
        if base_url is not None:
            # The configured models say nothing about some other server.
            terminal.error(error)
            raise typer.Exit(1) from error
        is_running = False
        infos = [ModelInfo(id=name) for name in settings.llm_model]
    except ClientError as error:
        terminal.error(error)
        raise typer.Exit(1) from error
    if as_json:
        reply = {"base_url": url, "running": is_running, "models": [asdict(i) for i in infos]}
        typer.echo(json.dumps(reply, ensure_ascii=False))
        return
    _print_table(infos)
    if not is_running:
        typer.echo(f"Configured in LLM_MODEL; no server is running at {url}.", err=True)


def list_models(client: Client) -> list[ModelInfo]:
    """List the models with the details of each, as far as the server gives any."""
    infos: list[ModelInfo] = []
    has_details = True
    for listed in client.models():
        info = listed
        if has_details:
            try:
                info = client.model(listed.id)
            except ServerError:
                info = listed
            # A server that has nothing more to tell is not asked about each of its models.
            has_details = info.engine is not None
        infos.append(info if has_details else listed)
    return infos


def _print_table(infos: Sequence[ModelInfo]) -> None:
    columns: dict[str, list[object]] = {
        "model": [info.id for info in infos],
        "engine": [info.engine for info in infos],
        "ready": [_readiness(info) for info in infos],
        "context": [info.context_length for info in infos],
        "adapter": [info.adapter for info in infos],
        "aliases": [", ".join(info.aliases) for info in infos],
        "owner": [None if info.engine else info.owned_by for info in infos],
    }
    shown = {name: cells for name, cells in columns.items() if name == "model" or any(cells)}
    table = Table(*shown, box=SIMPLE_HEAD, pad_edge=False)
    for row in zip(*shown.values(), strict=True):
        table.add_row(*(terminal.harmless("" if cell is None else str(cell)) for cell in row))
    # Into a pipe nothing is cut to some width.
    Console(width=None if terminal.is_terminal() else 1000, markup=False).print(table)


def _readiness(info: ModelInfo) -> str:
    if info.ready is None:
        return ""
    return "yes" if info.ready else f"no: {info.detail}" if info.detail else "no"
