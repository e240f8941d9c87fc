"""The life of the server process: bind, load, serve, stop."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable

import typer

from adapters.errors import AdapterError
from engines.errors import EngineError
from server.bootstrap import build_models
from server.listening import Server, bind, http_config
from server.models import ModelTable
from server.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

EX_CONFIG = 78
"""Exit code for a wrong setting (sysexits.h)."""


def serve(settings: Settings) -> int:
    """Run the server until it is told to stop; return the exit code."""
    configure_logging(settings.log_level)
    try:
        settings.check_exposure()
        models = build_models(settings)
        listener = bind(settings)
    except (SettingsError, AdapterError, EngineError) as error:
        typer.echo(f"parlm cannot start: {error}", err=True)
        return EX_CONFIG
    with listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run(models, settings, listener))


def configure_logging(level: str) -> None:
    """Log to stderr. Libraries that would log requests or their contents stay quiet."""
    logging.basicConfig(
        level=level.upper(), format="%(levelname)-8s %(name)s: %(message)s", stream=sys.stderr
    )
    for name in ("asyncio", "httpx2", "httpcore", "sse_starlette", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def _run(models: ModelTable, settings: Settings, listener: socket.socket) -> int:
    config = http_config(models, settings)
    server = Server(config, settings.shutdown_timeout, lambda: _close(models))
    with server.handle_signals():
        loading = asyncio.ensure_future(_load(models))
        try:
            return await _serve(server, listener, loading, lambda: _announce(models, settings))
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            await _close(models)


async def _serve(
    server: Server,
    listener: socket.socket,
    loading: asyncio.Future[None],
    announce: Callable[[], None],
) -> int:
    """Serve from the start, 503 for a model until it has loaded; return the exit code."""
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
    if loading.done():
        if (error := loading.exception()) is not None:
            return await _give_up(error, server, serving)
        announce()
    await serving
    return 0


async def _close(models: ModelTable) -> None:
    """Close the engines, which ends their answers with an error; safe to call again."""
    await asyncio.gather(*(model.engine.aclose() for model in models.models.values()))


async def _load(models: ModelTable) -> None:
    """Start the models one after another: two that load at once may not fit in memory."""
    for model in models.models.values():
        logger.info("loading %s with %s: %s", model.name, model.engine.name, model.reason)
        await model.engine.start()


async def _give_up(error: BaseException, server: Server, serving: asyncio.Future[None]) -> int:
    if not isinstance(error, EngineError):
        logger.error("a model failed to start", exc_info=error)
    typer.echo(f"parlm cannot start: {error}", err=True)
    server.stop()
    await serving
    return 1


def _announce(models: ModelTable, settings: Settings) -> None:
    """Print the base URL as the last line, for people and scripts."""
    names = ", ".join(f"{m.name} ({m.engine.name})" for m in models.models.values())
    typer.echo(f"parlm serves {names}. Stop with Ctrl-C. Base URL for any OpenAI client:")
    typer.echo(settings.base_url)
    sys.stdout.flush()


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.Loop
