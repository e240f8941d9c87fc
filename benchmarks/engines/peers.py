"""What is compared: servers that are started for the run, our engine alone, servers elsewhere."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from benchmarks.engines.load import Endpoint, LoadError, Wave
from benchmarks.engines.processes import ROOT, Server, environment, free_port
from benchmarks.engines.servers import MODEL_NAME, SERVERS, Setup

START_SECONDS = 120.0  # in which a server must have answered once
ENGINE = "parlm-engine"


class Peer(Protocol):
    """Something that answers waves of prompts."""

    async def wave(self, prompts: list[str], max_tokens: int) -> Wave:
        """Answer each prompt with exactly `max_tokens` tokens. Raises `LoadError`."""
        ...

    def cpu_seconds(self) -> float | None:
        """Return the CPU time used since the start; None when that cannot be seen."""
        ...

    def stop(self) -> None:
        """End what was started."""
        ...


@dataclass(frozen=True, slots=True)
class RemotePeer:
    """A server that somebody else started."""

    endpoint: Endpoint

    async def wave(self, prompts: list[str], max_tokens: int) -> Wave:
        """Run a wave."""
        return await self.endpoint.wave(prompts, max_tokens)

    def cpu_seconds(self) -> None:
        """Its processes are not ours to look at."""

    def stop(self) -> None:
        """Leave it running."""


@dataclass(frozen=True, slots=True)
class ServerPeer:
    """A server that was started for the run."""

    endpoint: Endpoint
    server: Server

    async def wave(self, prompts: list[str], max_tokens: int) -> Wave:
        """Run a wave."""
        return await self.endpoint.wave(prompts, max_tokens)

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server's processes."""
        return self.server.cpu_seconds()

    def stop(self) -> None:
        """End the server."""
        self.server.stop()


@dataclass(frozen=True, slots=True)
class EnginePeer:
    """Our engine without HTTP: `scripts/bench_engine.py`, over pipes."""

    server: Server

    async def wave(self, prompts: list[str], max_tokens: int) -> Wave:
        """Run a wave."""
        order = msgspec.json.encode({"prompts": prompts, "max_tokens": max_tokens})
        self.server.write_line(order)
        wave = msgspec.json.decode(await _read_line(self.server), type=Wave)
        if any(stream.tokens != max_tokens for stream in wave.streams):
            raise LoadError(f"the engine did not answer with {max_tokens} tokens each")
        return wave

    def cpu_seconds(self) -> float:
        """Return the CPU time of the engine's processes."""
        return self.server.cpu_seconds()

    def stop(self) -> None:
        """End the engine."""
        self.server.stop()


async def start_server(name: str, setup: Setup, folder: Path) -> Peer:
    """Start the server called `name` in an empty folder; return when it has answered once.

    Raises `Absent` or `LoadError`.
    """
    port = free_port()
    launch = SERVERS[name](setup, port)
    variables = environment(launch.variables, setup.site)
    server = Server(launch.command, variables, folder, piped=False)
    peer = ServerPeer(Endpoint(f"http://127.0.0.1:{port}/v1", MODEL_NAME), server)
    try:
        await _first_answer(name, peer)
    except BaseException:
        server.stop()
        raise
    return peer


async def _first_answer(name: str, peer: ServerPeer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            await peer.wave([" baba"], 1)
        except LoadError as error:
            if not peer.server.is_running() or time.monotonic() > deadline:
                words = peer.server.last_words()
                raise LoadError(f"{name} did not start: {error}\n{words}") from error
            await asyncio.sleep(0.1)
        else:
            return


async def start_engine(setup: Setup, folder: Path) -> Peer:
    """Start our engine without HTTP. Raises `LoadError`."""
    command = [sys.executable, str(ROOT / "scripts" / "bench_engine.py"), str(setup.model)]
    command += ["--slots", str(setup.slots), "--context", str(setup.context)]
    command += ["--threads", str(setup.threads)]
    server = Server(command, environment({}), folder, piped=True)
    try:
        await _read_line(server)
    except BaseException:
        server.stop()
        raise
    return EnginePeer(server)


async def _read_line(server: Server) -> bytes:
    line = await asyncio.to_thread(server.read_line)
    if not line:
        raise LoadError(f"the engine ended:\n{server.last_words()}")
    return line
