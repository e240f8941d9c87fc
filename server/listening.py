"""How the server listens: its socket, uvicorn's settings, and what signals do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn

from server.app import create_app
from server.guard import GuardLimits, guarded_protocol
from server.models import ModelTable
from server.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

BACKLOG = 2048
LAST_WORDS = 1.0
"""Seconds that answers ended by a shutdown get to reach their clients."""
BACKSTOP = 10
"""Seconds after the end of patience at which uvicorn cancels what is left."""


def bind(settings: Settings) -> socket.socket:
    """Listen on MODEL_SERVER. Raises `SettingsError` when that is not possible."""
    if settings.base_url.startswith("https:"):
        raise SettingsError(
            f"MODEL_SERVER={settings.model_server!r}: the server itself speaks http only; set "
            "host:port here, and put what speaks TLS in front of it"
        )
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except socket.gaierror as error:
        raise SettingsError(
            f"MODEL_SERVER={settings.model_server!r}: {error.strerror}; set it to an address of "
            "this machine, e.g. 127.0.0.1:8000"
        ) from None
    except OSError as error:
        raise SettingsError(
            f"MODEL_SERVER={settings.model_server!r}: {os.strerror(error.errno or 0)}; is another "
            "server running there? Stop it, or set MODEL_SERVER to another host:port"
        ) from None


class Server(uvicorn.Server):
    """uvicorn with a shutdown of our own: what still runs at its end is told so, not cut off.

    Running answers have `patience` seconds from the first signal, or until a second one. Then
    `end_answers` must make each of them end with an error, and those get `LAST_WORDS` seconds
    to be sent.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        patience: float,
        end_answers: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__(config)
        self._patience = patience
        self._end_answers = end_answers
        self._impatient = asyncio.Event()

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM; for longer than `serve` runs, as engines close after it."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: uvicorn would raise a signal again after `serve`, and end the engines."""
        yield

    def stop(self) -> None:
        """Stop serving; said twice, do not wait for running answers."""
        if self.should_exit:
            self._impatient.set()
            return
        self.should_exit = True
        logger.info("stopping; running answers may finish, a second signal ends them")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and return when the present ones are over."""
        ending = asyncio.ensure_future(self._end_in_time())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()
            await asyncio.wait({ending})

    async def _end_in_time(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._impatient.wait(), self._patience)
        await self._end_answers()
        await asyncio.sleep(LAST_WORDS)
        self.force_exit = True


def http_config(models: ModelTable, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        create_app(models, settings),
        http=guarded_protocol(GuardLimits()),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # A client's X-Forwarded-For is nobody's word.
        proxy_headers=False,
        # Only for what even `Server` could not end.
        timeout_graceful_shutdown=settings.shutdown_timeout + BACKSTOP,
    )
