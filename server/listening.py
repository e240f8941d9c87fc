"""How the server listens: its socket, uvicorn's settings, and what signals do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn

from server.app import create_app
from server.guard import GuardLimits, guarded_protocol
from server.models import ModelTable
from server.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

BACKLOG = 2048


def bind(settings: Settings) -> socket.socket:
    """Listen on MODEL_SERVER. Raises `SettingsError` when that is not possible."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"MODEL_SERVER={settings.model_server!r}: {os.strerror(error.errno or 0)}; is another "
            "server running there? Stop it, or set MODEL_SERVER to another host:port"
        ) from None


class Server(uvicorn.Server):
    """uvicorn, except that a signal ends `serve` instead of being raised again after it.

    What holds the engines must still run then. A second signal stops at once.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM while serving."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = True
        logger.info("stopping; running answers may finish, a second signal stops at once")


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
        timeout_graceful_shutdown=settings.shutdown_timeout,
    )
