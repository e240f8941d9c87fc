"""The command line, `parlm`."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from server.cli import convert
from server.cli.chat import chat
from server.cli.models import models
from server.cli.options import EnvFile, read_settings
from server.cli.pull import pull
from server.settings import SettingsError

EX_CONFIG = 78  # sysexits.h: something is wrong with the configuration

app = typer.Typer(
    name="parlm",
    help="One OpenAI-compatible endpoint over the models you run and the ones you rent.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"parlm {version('parlm')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """One OpenAI-compatible endpoint over the models you run and the ones you rent."""


@app.command()
def serve(
    env_file: EnvFile = None,
    model: Annotated[
        str | None,
        typer.Option(help="Models to serve, comma-separated.", show_default="from LLM_MODEL"),
    ] = None,
    model_server: Annotated[
        str | None,
        typer.Option(help="Where to listen: host:port.", show_default="from MODEL_SERVER"),
    ] = None,
) -> None:
    """Start the server. It runs until Ctrl-C or SIGTERM."""
    # Here, because the other commands should not wait for the server's imports.
    from server.lifecycle import serve as run_server

    settings = read_settings(env_file, llm_model=model, model_server=model_server)
    raise typer.Exit(run_server(settings))


app.command()(chat)
app.command()(models)
app.add_typer(convert.app)
app.command()(pull)


def main() -> None:
    """Run the command line. Wrong settings are told on stderr and exit with `EX_CONFIG`."""
    try:
        app()
    except SettingsError as error:
        typer.echo(f"parlm: {error}", err=True)
        sys.exit(EX_CONFIG)
