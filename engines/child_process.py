"""The parent's side of one child process: start it, talk to it, hear its log, end it for sure."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self, cast

from engines import wire

logger = logging.getLogger(__name__)

# What a child needs of the parent's environment: to find programs, libraries and devices.
# Everything else stays behind; keys and tokens above all.
INHERITED_VARIABLES = frozenset(
    {"PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV"}
    | {"LD_LIBRARY_PATH", "LD_PRELOAD", "SYSTEMROOT"}
    | {"XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"}
)
INHERITED_PREFIXES = ("LC_", "DYLD_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "GGML_", "OMP_", "GOMP_")

_SOURCE_ROOT = str(Path(__file__).resolve().parents[1])
_MAX_LINE = 500
_TAIL_LINES = 20
_READ_BYTES = 64 * 1024
_LAST_LINES_SECONDS = 0.3


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: what it inherits, `extra`, and the way to this package."""
    inherited = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - handed on, not read as a setting
        if name in INHERITED_VARIABLES or name.startswith(INHERITED_PREFIXES)
    }
    environment = inherited | dict(extra)
    paths = (_SOURCE_ROOT, environment.get("PYTHONPATH", ""))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


class ChildProcess(asyncio.Protocol):
    """One running child. `lost` completes when its end of the socket closes: it died or exits.

    `on_message` gets every message of the child, in the event loop, and must not block. All the
    methods but `spawn`, `reap` and `shut_down` return at once, so that they work in any clean-up.
    """

    def __init__(self, name: str, on_message: Callable[[wire.ToParent], None]) -> None:
        self._name = name
        self._on_message = on_message
        self._frames = wire.FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._log_task: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.frames_received = 0
        self.commands_sent = 0
        self.fault = ""

    @classmethod
    async def spawn(
        cls,
        name: str,
        launch: wire.Launch,
        environment: Mapping[str, str],
        on_message: Callable[[wire.ToParent], None],
    ) -> Self:
        """Start a child and tell it what to load. `name` is the engine's, for the log.

        Raises `OSError` when no process can be started, and what `wire.encode` does.
        """
        frame = wire.encode(launch)
        child = cls(name, on_message)
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                await child._start_process(theirs.fileno(), environment)
            ours.setblocking(False)
            await loop.create_unix_connection(lambda: child, sock=ours)
        except BaseException:
            ours.close()
            await child.reap()
            raise
        child._write(frame)
        return child

    async def _start_process(self, fd: int, environment: Mapping[str, str]) -> None:
        # -P: the working directory must not decide which `engines` is imported. The session of
        # its own makes the child the leader of a process group that can be killed as one.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "engines.worker", str(fd)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(fd,),
            env=child_environment(environment),
            start_new_session=True,
        )
        log = cast(asyncio.StreamReader, self._process.stderr)
        self._log_task = asyncio.create_task(self._copy_log(log), name=f"{self._name} log")

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        return self._process.pid if self._process is not None else 0

    def send(self, command: wire.ToChild) -> None:
        """Send a command, unless the child is gone. Raises what `wire.encode` does."""
        self._write(wire.encode(command))
        self.commands_sent += 1

    def _write(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def kill(self, reason: str = "") -> None:
        """End the whole process group now; `reason` is kept as the fault to report."""
        self.fault = self.fault or reason
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            # The group is addressed even after its leader died: others of it may live on.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    async def shut_down(self, grace: float) -> None:
        """Ask the child to exit; after `grace` seconds SIGTERM, then SIGKILL."""
        self.send(wire.Shutdown())
        await asyncio.wait({self.lost}, timeout=grace)
        if not self.lost.done():
            self._signal(signal.SIGTERM)
            await asyncio.wait({self.lost}, timeout=min(grace, 1.0))
        if not self.lost.done():
            self.kill()

    async def reap(self) -> None:
        """Kill what is left of the group and wait until process, pipe and socket are gone."""
        if self._process is not None and not self.fault:
            # Its socket closes a little before it ends: let it finish its last lines of log.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _LAST_LINES_SECONDS)
        self.kill()
        if self._transport is not None:
            self._transport.abort()
        if self._process is not None:
            await self._process.wait()
        if self._log_task is not None:
            # A process that left the group could hold the pipe open for ever.
            await asyncio.wait({self._log_task}, timeout=1.0)
            self._log_task.cancel()
            await asyncio.wait({self._log_task})

    def explain_end(self) -> str:
        """Say how the child ended, for the log and for who waited for it."""
        status = self._process.returncode if self._process is not None else None
        if self.fault:
            return self.fault
        if status is None:
            return "it closed its connection"
        if status >= 0:
            return f"it exited with status {status}"
        with suppress(ValueError):
            return f"it was killed by {signal.Signals(-status).name}"
        return f"it was killed by signal {-status}"

    def last_words(self) -> str:
        """The end of what the child wrote to its log."""
        return "\n".join(self._tail)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to write to."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand on the messages that are complete; a child that breaks the protocol is killed."""
        try:
            for body in self._frames.feed(data):
                self.frames_received += 1
                self._on_message(wire.decode_to_parent(body))
        except wire.FrameError as error:
            logger.error("%s: the child process broke the protocol: %s", self._name, error)
            self.kill("it broke the protocol")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """Tell who waits that the child is gone or going."""
        if not self.lost.done():
            self.lost.set_result(None)

    async def _copy_log(self, log: asyncio.StreamReader) -> None:
        """Copy the child's standard error to our log, line by line, however long a line is."""
        rest = b""
        while data := await log.read(_READ_BYTES):
            *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            rest = rest[:_MAX_LINE]
            for line in lines:
                self._log_line(line)
        self._log_line(rest)

    def _log_line(self, line: bytes) -> None:
        text = line[:_MAX_LINE].decode(errors="replace").rstrip()
        if text:
            # A log line is one line: what could forge another one is shown as an escape.
            text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
            self._tail.append(text)
            logger.info("%s: %s", self._name, text)
