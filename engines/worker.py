"""The child process that runs a core: commands in, one frame of outputs per step out.

Started by `engines.child_process` as `python -P -m engines.worker FD`, where FD is one end of a
Unix socket pair; nothing listens anywhere. It ends with its parent: the socket closes, and on
Linux the kernel kills it besides.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import assert_never, cast

from engines import wire
from engines.core import Core, StepOutput
from engines.embedding_jobs import EmbeddingJobs
from engines.errors import EngineError, ModelLoadError, internal_error
from engines.load_progress import load_progress_to
from engines.types import Usage
from engines.wire_types import pack_error, pack_output, unpack_prompt, unpack_request

HEARTBEAT_SECONDS = 0.5
# A thread that computes must hand the interpreter over quickly: at Python's default of 5 ms the
# thread that runs the model loses more than half of its speed beside a busy one.
SWITCH_INTERVAL_SECONDS = 0.0005
_READ_BYTES = 256 * 1024
# How long the rest of a message may take to come before the running requests go on.
_REST_MILLISECONDS = 50
_PR_SET_PDEATHSIG = 1


class ParentGone(Exception):
    """The other end of the socket is closed."""


class Connection:
    """The child's end of the socket: blocking, for one thread at a time."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._frames = wire.FrameBuffer()

    def send(self, message: wire.ToParent) -> None:
        """Send one message. It may block, but not for ever: a living parent always reads."""
        try:
            self._socket.sendall(wire.encode(message))
        except OSError as error:
            raise ParentGone from error

    def receive(self, is_waiting: bool) -> list[wire.ToChild]:
        """Return the messages that have come; with `is_waiting`, block until bytes come.

        A message of megabytes comes in dozens of reads. It is waited for: with a step of the
        model between them, every other command would be stuck behind it for as many steps.
        """
        messages = self._read(0 if is_waiting else socket.MSG_DONTWAIT)
        while not messages and self._frames.is_partial and self._rest_is_coming():
            messages = self._read(socket.MSG_DONTWAIT)
        return messages

    def _rest_is_coming(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(_REST_MILLISECONDS))

    def _read(self, flags: int) -> list[wire.ToChild]:
        try:
            data = self._socket.recv(_READ_BYTES, flags)
        except BlockingIOError:
            return []
        except OSError as error:
            raise ParentGone from error
        if not data:
            raise ParentGone
        return [wire.decode_to_child(body) for body in self._frames.feed(data)]


class Worker:
    """Runs one core for one parent, in the thread that calls `run`."""

    def __init__(self, connection: Connection, core: Core) -> None:
        self._connection = connection
        self._core = core
        self._steps = 0
        self._commands = 0
        self._running: set[str] = set()
        self._is_over = False
        self._embedding = EmbeddingJobs(core, connection.send)

    def run(self) -> None:
        """Serve until the parent says `Shutdown` or goes away."""
        while not self._is_over:
            is_idle = not (self._core.has_work() or self._embedding)
            commands = self._connection.receive(is_waiting=is_idle)
            for command in commands:
                self._handle(command)
                self._commands += 1
            if self._core.has_work():
                self._step()
            elif commands:
                self._connection.send(
                    wire.Heartbeat(self._steps, self._commands, len(self._running))
                )
            if self._embedding:
                self._embedding.advance()

    def _handle(self, command: wire.ToChild) -> None:
        match command:
            case wire.Submit():
                self._submit(command)
            case wire.Cancel(request_id):
                self._running.discard(request_id)
                self._core.cancel(request_id)
                self._embedding.cancel(request_id)
            case wire.Tokenize():
                self._connection.send(self._tokenize(command))
            case wire.Embed():
                self._embedding.open(command)
            case wire.Shutdown():
                self._is_over = True
            case wire.Launch():
                raise wire.FrameError("a second launch")
            case _:
                assert_never(command)

    def _submit(self, command: wire.Submit) -> None:
        request = unpack_request(command.request)
        self._running.add(request.request_id)
        try:
            self._core.submit(request)
        except EngineError as error:
            self._send([StepOutput(request.request_id, error=error)])
        except Exception as error:
            traceback.print_exc()
            self._core.cancel(request.request_id)
            self._send([StepOutput(request.request_id, error=internal_error(error))])

    def _tokenize(self, command: wire.Tokenize) -> wire.Tokenized:
        try:
            token_ids = self._core.tokenize(unpack_prompt(command.prompt))
        except EngineError as error:
            return wire.Tokenized(command.call, error=pack_error(error))
        except Exception as error:
            traceback.print_exc()
            return wire.Tokenized(command.call, error=pack_error(internal_error(error)))
        return wire.Tokenized(command.call, tuple(token_ids))

    def _step(self) -> None:
        """Advance the core. An exception here has no request to blame and ends the process."""
        outputs = self._core.step()
        self._steps += 1
        self._send(outputs)

    def _send(self, outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            if output.error is not None or (output.events and isinstance(output.events[-1], Usage)):
                self._running.discard(output.request_id)
        packed = tuple(map(pack_output, outputs))
        self._connection.send(wire.Outputs(self._steps, self._commands, packed))


@contextmanager
def _heartbeats(connection: Connection) -> Iterator[None]:
    """Tell the parent all along that the load goes on, and how far it has come."""
    is_done = threading.Event()
    news: deque[str] = deque(maxlen=1)

    def beat() -> None:
        while not is_done.wait(HEARTBEAT_SECONDS):
            message = wire.LoadProgress(news.pop()) if news else wire.Heartbeat(0, 0, 0)
            try:
                connection.send(message)
            except ParentGone:
                os._exit(1)  # the main thread may be deep inside a load that nobody waits for

    thread = threading.Thread(target=beat, name="heartbeats", daemon=True)
    thread.start()
    try:
        with load_progress_to(news.append):
            yield
    finally:
        is_done.set()
        thread.join()


def _build(launch: wire.Launch) -> Core:
    """Import the core's factory and call it. Raises `EngineError`."""
    module_name, _, attribute = launch.core.partition(":")
    try:
        return cast(Core, getattr(import_module(module_name), attribute)(**launch.options))
    except EngineError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise ModelLoadError(f"loading failed: {type(error).__name__}: {error}") from error


def _load(connection: Connection, launch: wire.Launch) -> Core | None:
    """Load the core and tell the parent how that went; None when it failed."""
    try:
        with _heartbeats(connection):
            core = _build(launch)
    except EngineError as error:
        connection.send(wire.LoadFailed(pack_error(error)))
        return None
    detail, generates = str(getattr(core, "detail", "")), bool(getattr(core, "generates", True))
    connection.send(wire.Loaded(core.context_length, detail, generates))
    return core


def _prepare_process() -> None:
    """Settle how this process lives and dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Ctrl-C in a terminal reaches every process; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A core file would hold prompts, and writing it delays the news of a crash.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print belongs to the log


def _launch(connection: Connection) -> wire.Launch:
    """Wait for the first message."""
    messages: list[wire.ToChild] = []
    while not messages:
        messages = connection.receive(is_waiting=True)
    first = messages[0]
    if len(messages) > 1 or not isinstance(first, wire.Launch):
        raise wire.FrameError("the first message must be the launch, alone")
    return first


def main() -> int:
    """Run the child process; the exit status is 0 when the parent ended it, 1 after an error."""
    _prepare_process()
    core: Core | None = None
    with socket.socket(fileno=int(sys.argv[1])) as connected:
        connection = Connection(connected)
        try:
            core = _load(connection, _launch(connection))
            if core is None:
                return 1
            Worker(connection, core).run()
        except ParentGone:
            pass
        except Exception:
            # Now, not when the interpreter ends: the parent acts as soon as the socket closes.
            traceback.print_exc()
            return 1
        finally:
            if core is not None:
                core.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
