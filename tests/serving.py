"""Servers for tests: the application in a thread, or the whole program in a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from adapters.base import BaseChatAdapter
from engines.base import Engine
from engines.types import ModelDescription
from server.listening import Server, http_config
from server.models import ModelTable, ServedModel
from server.settings import Settings

ROOT = Path(__file__).parent.parent


def served(
    engine: Engine,
    name: str = "echo",
    adapter: BaseChatAdapter | None = None,
    aliases: tuple[str, ...] = (),
) -> ServedModel:
    """A model around an engine, with the default adapter that leaves messages as they are."""
    return ServedModel(
        name=name,
        engine=engine,
        adapter=adapter or BaseChatAdapter(),
        description=ModelDescription(name=name),
        reason="a test asked for it",
        fingerprint="fp_test",
        created=1_700_000_000,
        aliases=aliases,
    )


@contextlib.contextmanager
def app_server(models: Sequence[ServedModel], **settings: Any) -> Iterator[str]:
    """Serve models from a thread on a free port; yields the root URL. Engines start and close."""
    values = {"shutdown_timeout": 2} | settings
    config = http_config(ModelTable(models), Settings(_env_file=None, **values))
    server = Server(config, values["shutdown_timeout"], lambda: _close(models))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_run, args=(server, models, listener))
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def _run(server: Server, models: Sequence[ServedModel], listener: socket.socket) -> None:
    async def main() -> None:
        for model in models:
            await model.engine.start()
        try:
            await server.serve(sockets=[listener])
        finally:
            await _close(models)

    asyncio.run(main())


async def _close(models: Sequence[ServedModel]) -> None:
    for model in models:
        await model.engine.aclose()


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Program:
    """A running `parlm serve`."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return self.lines[-1]

    @property
    def root(self) -> str:
        return self.base_url.removesuffix("/v1")

    def engine_pids(self) -> list[int]:
        """Process ids of the engine children."""
        out = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "engines.worker"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        return [int(line) for line in out.split()]

    def stop(self, number: int = signal.SIGINT, within: float = 20) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within)


def clean_environment(**settings: str) -> dict[str, str]:
    """The environment without any setting but these."""
    names = {name.upper() for name in Settings.model_fields}
    kept = {k: v for k, v in os.environ.items() if k.upper() not in names}
    return kept | {"PYTHONPATH": str(ROOT)} | settings


@contextlib.contextmanager
def program(cwd: Path, *, within: float = 60, **settings: str) -> Iterator[Program]:
    """Run `parlm serve` in `cwd` with settings in its environment; yields once it is ready."""
    usual = {"MODEL_SERVER": f"127.0.0.1:{free_port()}", "XDG_CACHE_HOME": str(cwd)}
    settings = usual | settings
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "serve"],
        cwd=cwd,
        env=clean_environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Program(process)
    printed: queue.Queue[str] = queue.Queue()
    readers = [
        threading.Thread(target=_read, args=(process.stdout, running.lines, printed)),
        threading.Thread(target=_read, args=(process.stderr, running.errors, None)),
    ]
    for reader in readers:
        reader.start()
    try:
        _wait_for_url(running, printed, time.monotonic() + within)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        for reader in readers:
            reader.join(10)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _read(pipe: Any, lines: list[str], printed: queue.Queue[str] | None) -> None:
    for line in pipe:
        lines.append(line.rstrip("\n"))
        if printed is not None:
            printed.put(lines[-1])


def _wait_for_url(running: Program, printed: queue.Queue[str], deadline: float) -> None:
    while time.monotonic() < deadline:
        with contextlib.suppress(queue.Empty):
            if re.fullmatch(r"https?://\S+/v1", printed.get(timeout=0.2)):
                return
        if running.process.poll() is not None:
            break
    raise AssertionError("no base URL; stderr:\n" + "\n".join(running.errors))


def wait_until(condition: Any, within: float = 10, what: str = "the condition") -> None:
    """Poll a condition."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {within} s"
        time.sleep(0.02)


def post(url: str, body: Mapping[str, Any], **headers: str) -> httpx2.Response:
    """POST a JSON body."""
    return httpx2.post(url, json=dict(body), headers=headers, timeout=60, trust_env=False)
