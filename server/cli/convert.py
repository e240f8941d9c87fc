"""`parlm convert`: weights in a form that an engine here cannot read, made into one that it can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from engines.errors import ModelLoadError
from server.cli import terminal

app = typer.Typer(
    name="convert", help="Convert weights to a form that an engine reads.", no_args_is_help=True
)


@app.command()
def checkpoint(
    folder: Annotated[Path, typer.Argument(help="The model's folder, with pytorch_model*.bin.")],
) -> None:
    """Convert a PyTorch checkpoint to safetensors, beside it, and print the folder.

    Of the files, which are pickles, only tensors are read; nothing in them is run. Afterwards
    they may be removed.
    """
    try:
        # Here, because that imports torch.
        from engines.checkpoints import convert_checkpoint
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed: run pip install '.[transformers]'")
    try:
        with progress_bar(f"Converting {folder.name}") as on_progress:
            convert_checkpoint(folder, on_progress)
    except ModelLoadError as error:
        _fail(error)
    typer.echo(folder)


@app.command()
def gptj(
    source: Annotated[Path, typer.Argument(help="The legacy GGML file: ggml-gpt4all-j-….bin.")],
    target: Annotated[
        Path | None,
        typer.Argument(help="The GGUF file to make.", show_default="where `parlm serve` finds it"),
    ] = None,
) -> None:
    """Convert the legacy GGML file of a GPT-J to GGUF, and print where that is.

    The server does the same when LLM_MODEL_PATH names such a file.
    """
    try:
        # Here, because numpy comes with the engine and is not there without one.
        from engines.gptj.cache import convert, converted
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed: run `make install`")
    if target is not None and target.exists():
        _fail(f"{target} exists already: name another file, or remove it")
    try:
        with progress_bar(f"Converting {source.name}") as on_progress:
            if target is None:
                target = converted(source, on_progress)
            else:
                convert(source, target, on_progress)
    except ModelLoadError as error:
        _fail(error)
    typer.echo(target)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr for as long as it takes; call what this gives with bytes done, total."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True, markup=False)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _fail(problem: object) -> NoReturn:
    terminal.error(problem)
    raise typer.Exit(1)
