"""Processes under measurement: started for the run, counted with their children, ended with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

import psutil

ROOT = Path(__file__).resolve().parents[2]
# What a server needs of our environment; a setting left there must not change what is measured.
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_GRACE_SECONDS = 10.0


def environment(variables: Mapping[str, str], site: Path | None = None) -> dict[str, str]:
    """Return an environment of a few inherited variables, these ones, and the way to our packages.

    `site` is a further folder of Python packages.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - handed on, not read as a setting
        if name in _INHERITED
    }
    paths = [str(ROOT), *([str(site)] if site else [])]
    return inherited | {"PYTHONPATH": os.pathsep.join(paths)} | dict(variables)


def free_port() -> int:
    """Return a port of this machine nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Server:
    """A running process with what it starts, in a session of its own; its output is in `log`."""

    def __init__(
        self, command: Sequence[str], variables: Mapping[str, str], folder: Path, *, piped: bool
    ) -> None:
        """Start `command` in `folder`. With `piped`, its standard input and output are pipes."""
        self.log = folder / "log.txt"
        pipe = subprocess.PIPE if piped else None
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(variables),
                stdin=pipe or subprocess.DEVNULL,
                stdout=pipe or log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def is_running(self) -> bool:
        """Tell whether the process has not ended."""
        return self._popen.poll() is None

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process and all its descendants have used, in seconds."""
        root = psutil.Process(self.pid)
        total = 0.0
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it ended; its parent counts it from then on
                times = process.cpu_times()
                total += times.user + times.system
                total += times.children_user + times.children_system
        return total

    def write_line(self, line: bytes) -> None:
        """Write to the standard input of a piped process."""
        stdin = cast(IO[bytes], self._popen.stdin)
        stdin.write(line + b"\n")
        stdin.flush()

    def read_line(self) -> bytes:
        """Wait for a line of a piped process's standard output; empty at its end."""
        return cast(IO[bytes], self._popen.stdout).readline()

    def last_words(self) -> str:
        """Return the end of the log."""
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """End the process politely, then everything in its session for certain."""
        self._popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_GRACE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                stream.close()
