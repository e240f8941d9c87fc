"""`parlm pull`: download the weights of a model into the folder of models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from engines.registry import ENGINES
from server.catalog import CatalogEntry, catalog
from server.cli import terminal
from server.cli.options import AsJson, EnvFile, read_settings
from server.machine import look_at_machine
from server.memory import in_gb
from server.model_specs import models_folder
from server.outlook import nearest, outlook
from server.settings import Settings

if TYPE_CHECKING:
    from server.pull.download import Report
    from server.pull.files import ModelFormat, RemoteFile
    from server.pull.hub import Hub
    from server.pull.plan import Plan
    from server.pull.store import Store


def pull(
    name: Annotated[
        str,
        typer.Argument(help="A name of `parlm models --catalog`, or a repository: Qwen/Qwen3-8B."),
    ],
    quant: Annotated[
        str | None,
        typer.Option(help="A GGUF quantisation, e.g. Q4_K_M or Q8_0.", show_default="Q4_K_M"),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A branch, tag or commit.", show_default="main")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="gguf or safetensors.", show_default="what runs best here"),
    ] = None,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Download the weights of a model. Run it again after an interruption: it goes on."""
    if format not in (None, "gguf", "safetensors"):
        raise typer.BadParameter("gguf or safetensors", param_hint="--format")
    settings = read_settings(env_file)
    # Here, because the other commands should not wait for the hub's client.
    from server.pull.errors import PullError

    try:
        _pull(name, quant, revision, _as_format(format), settings, as_json=as_json)
    except PullError as error:
        terminal.error(error)
        raise typer.Exit(1) from error


def _as_format(text: str | None) -> ModelFormat | None:
    return "gguf" if text == "gguf" else "safetensors" if text == "safetensors" else None


def _pull(
    name: str,
    quant: str | None,
    revision: str | None,
    format: ModelFormat | None,
    settings: Settings,
    *,
    as_json: bool,
) -> None:
    from server.pull.hub import Hub
    from server.pull.plan import Wish, make_plan
    from server.pull.store import Store

    entry = catalog().find(name)
    served_as = name if entry is None else entry.name
    wish = Wish(
        name=name,
        format=format,
        quant=quant,
        revision=revision,
        prefers_gguf=_prefers_gguf(entry, settings, is_told=format is None and quant is None),
        may_have_code=bool({name, served_as} & set(settings.trust_remote_code)),
    )
    token = settings.hf_token.get_secret_value() if settings.hf_token else None
    hub = Hub(settings.hf_endpoint, token)
    store = Store(models_folder(settings), served_as)
    existing = store.existing()
    plan = make_plan(wish, entry, hub)
    if existing is None:
        folder = _download(plan, hub, store, entry)
    else:
        folder = _check_existing(existing == plan.source, store, plan)
    _say_done(plan, folder, was_there=existing is not None, as_json=as_json)


def _prefers_gguf(entry: CatalogEntry | None, settings: Settings, *, is_told: bool) -> bool:
    """Tell which format runs best here, and warn when the model runs in none."""
    machine = look_at_machine(settings)
    if entry is None:
        return not machine.gpus
    found = outlook(entry, machine, ENGINES)
    if found.engine is None and is_told:
        terminal.warn(
            f"{entry.name} does not run on this machine: {found.reason}. "
            f"{nearest(entry, machine, catalog())}"
        )
    return found.build is None or found.build.format == "gguf"


def _download(plan: Plan, hub: Hub, store: Store, entry: CatalogEntry | None) -> Path:
    from server.pull.download import download

    licence = f", licence: {entry.licence}" if entry is not None else ""
    what = " ".join(filter(None, (plan.source.format, plan.source.quant)))
    terminal.warn(
        f"{plan.name}: {in_gb(plan.size_bytes)} of {what} from {plan.source.repo}{licence}"
    )
    with _progress(plan) as report:
        return download(plan, hub, store, report)


def _check_existing(is_same: bool, store: Store, plan: Plan) -> Path:
    from server.pull.errors import PullError

    if not is_same:
        source = plan.source
        raise PullError(
            f"{store.folder} holds another build or an older revision of {plan.name}: move it away "
            f"or delete it to get {source.quant or source.format} of {source.repo}"
        )
    return store.folder


@contextmanager
def _progress(plan: Plan) -> Iterator[Report]:
    """Show one bar for all bytes, on stderr; without a terminal a line for each file."""
    console = Console(stderr=True)
    columns = (
        *(TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn()),
        *(TransferSpeedColumn(), TimeRemainingColumn()),
    )
    arrived: dict[str, int] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(plan.name, total=plan.size_bytes)

        def report(file: RemoteFile, done: int) -> None:
            arrived[file.path] = done
            progress.update(
                task, completed=sum(arrived.values()), description=terminal.harmless(file.name)
            )
            if done == file.size and not console.is_terminal:
                typer.echo(f"{terminal.harmless(file.name)}: {in_gb(file.size)}", err=True)

        yield report


def _say_done(plan: Plan, folder: Path, *, was_there: bool, as_json: bool) -> None:
    if as_json:
        source = plan.source
        answer = {
            "model": plan.name,
            "path": str(folder),
            "repository": source.repo,
            "revision": source.revision,
            "format": source.format,
            "quant": source.quant,
            "bytes": plan.size_bytes,
            "was_there": was_there,
        }
        typer.echo(json.dumps(answer, ensure_ascii=False))
        return
    if any(file.name.endswith(".bin") for file in plan.files) and plan.source.format != "ggml":
        terminal.warn(
            f"The weights of {plan.name} are pickle, which no engine opens: convert them to "
            "safetensors (torch.load with weights_only=True) before you serve them"
        )
    state = "was there already, complete" if was_there else "is complete"
    typer.echo(f"{plan.name} {state}: {folder}. To serve it, set LLM_MODEL={plan.name} in .env")
