"""The child process alone, with the test in the place of its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engines import wire
from engines.child_process import child_environment
from engines.types import TextDelta, Usage
from engines.wire_types import pack_prompt, pack_request, unpack_error, unpack_output
from engines.worker import Connection
from tests.engines.driving import ask


@dataclass
class Child:
    """A worker, and the parent's end of its socket."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    frames: wire.FrameBuffer = field(default_factory=wire.FrameBuffer)
    waiting: list[wire.ToParent] = field(default_factory=list)

    def send(self, *messages: wire.ToChild) -> None:
        self.socket.sendall(b"".join(map(wire.encode, messages)))

    def receive(self) -> wire.ToParent:
        while not self.waiting:
            data = self.socket.recv(65536)
            assert data, "the child is gone"
            self.waiting += [wire.decode_to_parent(body) for body in self.frames.feed(data)]
        return self.waiting.pop(0)

    def receive_all(self, kind: type[wire.ToParent], until: int) -> list[wire.ToParent]:
        """Messages up to the `until`-th of a kind."""
        messages: list[wire.ToParent] = []
        while sum(isinstance(message, kind) for message in messages) < until:
            messages.append(self.receive())
        return messages

    def end(self) -> tuple[int, str]:
        """Exit status and log."""
        _, log = self.process.communicate(timeout=10)
        return self.process.returncode, log.decode()


@pytest.fixture
def child() -> Iterator[Child]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "engines.worker", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=child_environment({}),
        )
    with ours, process:
        yield Child(process, ours)
        process.kill()


def launch(**options: Any) -> wire.Launch:
    return wire.Launch("engines.echo_core:create_core", options)


def submit(request_id: str, text: str, **sampling: Any) -> wire.Submit:
    return wire.Submit(pack_request(ask(text, **sampling), request_id))


def test_loads_and_runs_and_shuts_down(child: Child) -> None:
    child.send(launch(context_length=99))
    assert child.receive() == wire.Loaded(99)
    child.send(submit("a", "one two"), submit("b", "three"))
    outputs = [
        unpack_output(output)
        for message in child.receive_all(wire.Outputs, until=3)
        if isinstance(message, wire.Outputs)
        for output in message.outputs
    ]
    assert next(o.events[0] for o in outputs if o.request_id == "b") == TextDelta(0, "three")
    assert isinstance([o for o in outputs if o.request_id == "a"][-1].events[-1], Usage)
    child.send(wire.Shutdown())
    assert child.end() == (0, "")


def test_one_frame_of_outputs_per_step_counts_steps_and_commands(child: Child) -> None:
    child.send(launch())
    child.receive()
    child.send(submit("a", "one two three"))
    steps = [child.receive() for _ in range(4)]
    assert [m.steps for m in steps if isinstance(m, wire.Outputs)] == [1, 2, 3, 4]
    assert all(isinstance(m, wire.Outputs) and m.commands == 1 for m in steps)


def test_heartbeats_only_while_loading_and_after_idle_commands(child: Child) -> None:
    child.send(launch(load_seconds=1.2))
    messages = child.receive_all(wire.Loaded, until=1)
    assert [type(message) for message in messages[:2]] == [wire.Heartbeat] * 2
    child.send(wire.Cancel("nobody"))
    assert child.receive() == wire.Heartbeat(0, 1, 0)
    child.socket.settimeout(1.0)
    with pytest.raises(TimeoutError):
        child.receive()


def test_progress_of_a_load_goes_with_the_heartbeats(child: Child) -> None:
    child.send(wire.Launch("tests.engines.slow_core:create_core", {"steps": 6, "seconds": 0.3}))
    messages = child.receive_all(wire.Loaded, until=1)
    told = [message.detail for message in messages if isinstance(message, wire.LoadProgress)]
    # The last that was reported before each heartbeat; how many of them depends on the machine.
    assert told
    assert told == sorted(set(told))
    assert set(told) <= {f"step {number}" for number in range(6)}


def test_refusals_of_the_core_are_answers(child: Child) -> None:
    child.send(launch(max_requests=1))
    child.receive()
    child.send(submit("a", "for ever", ignore_eos=True), submit("b", "too many"))
    outputs = child.receive_all(wire.Outputs, until=2)
    errors = [
        (output.request_id, unpack_error(output.error))
        for message in outputs
        if isinstance(message, wire.Outputs)
        for output in message.outputs
        if output.error is not None
    ]
    assert [(who, type(error).__name__) for who, error in errors] == [("b", "EngineOverloaded")]


def test_a_cancelled_request_says_no_more(child: Child) -> None:
    child.send(launch(tokens_per_second=100))
    child.receive()
    child.send(submit("a", "for ever", ignore_eos=True))
    child.receive_all(wire.Outputs, until=3)
    child.send(wire.Cancel("a"))
    last = child.receive_all(wire.Heartbeat, until=1)[-1]
    assert isinstance(last, wire.Heartbeat)
    assert (last.commands, last.active) == (2, 0)


def test_tokenize_answers_by_call(child: Child) -> None:
    child.send(launch())
    child.receive()
    child.send(wire.Tokenize(7, pack_prompt(ask("one two").prompt)))
    answer = child.receive()
    assert isinstance(answer, wire.Tokenized)
    assert (answer.call, len(answer.token_ids)) == (7, 2)


def test_a_load_failure_names_its_class_and_exits(child: Child) -> None:
    child.send(launch(fail_load=True))
    failed = child.receive()
    assert isinstance(failed, wire.LoadFailed)
    assert failed.error.kind == "ModelLoadError"
    assert child.end()[0] == 1


def test_a_bug_in_a_step_ends_the_process_with_its_traceback(child: Child) -> None:
    child.send(launch(crash_at=0, crash_kind="raise"))
    child.receive()
    child.send(submit("a", "x"))
    status, log = child.end()
    assert status == 1
    assert "RuntimeError: the echo engine was told to fail" in log


def test_a_bug_in_submit_ends_that_request_only(child: Child, tmp_path: Path) -> None:
    child.send(launch(tokens_per_second="fast"))
    child.receive()
    child.send(submit("a", "x"), wire.Cancel("a"))
    message = child.receive()
    assert isinstance(message, wire.Outputs)
    assert message.outputs[0].error is not None
    assert message.outputs[0].error.message == "the engine failed on this request (TypeError)"
    child.send(wire.Shutdown())
    status, log = child.end()
    assert status == 0
    assert "Traceback" in log


@pytest.mark.parametrize("is_busy", [False, True])
def test_ends_when_the_parent_closes_the_socket(child: Child, is_busy: bool) -> None:
    child.send(launch(tokens_per_second=100))
    child.receive()
    if is_busy:
        child.send(submit("a", "for ever", ignore_eos=True))
        child.receive_all(wire.Outputs, until=2)
    child.socket.close()
    assert child.end() == (0, "")


def test_ends_when_the_parent_closes_the_socket_while_it_loads(child: Child) -> None:
    child.send(launch(load_seconds=600))
    child.receive()
    child.socket.close()
    assert child.end()[0] == 1


def test_ignores_the_terminals_interrupt(child: Child) -> None:
    child.send(launch())
    child.receive()
    os.kill(child.process.pid, signal.SIGINT)
    child.send(wire.Cancel("nobody"))
    assert isinstance(child.receive(), wire.Heartbeat)


def test_garbage_ends_the_process(child: Child) -> None:
    child.send(launch())
    child.receive()
    child.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    status, log = child.end()
    assert status == 1
    assert "FrameError" in log


def test_a_long_message_does_not_come_in_slices_between_steps() -> None:
    command = wire.Tokenize(1, pack_prompt(ask("word " * 500_000).prompt))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=ours.sendall, args=(wire.encode(command),))
        sender.start()
        assert theirs.recv(1, socket.MSG_PEEK)
        assert Connection(theirs).receive(is_waiting=False) == [command]
        sender.join()


def test_the_rest_of_a_message_is_not_waited_for_for_ever() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(theirs)
        frame = wire.encode(wire.Cancel("a"))
        ours.sendall(frame[:6])
        assert connection.receive(is_waiting=False) == []
        assert connection.receive(is_waiting=False) == []
        ours.sendall(frame[6:])
        assert connection.receive(is_waiting=False) == [wire.Cancel("a")]


def test_embedding_with_a_core_that_cannot_is_refused(child: Child) -> None:
    child.send(launch())
    child.receive()
    child.send(wire.Embed("a", (pack_prompt(ask("one").prompt),)))
    answer = child.receive()
    assert isinstance(answer, wire.Embedded)
    assert answer.error is not None
    assert answer.error.kind == "UnsupportedOperation"
    assert child.receive() == wire.Heartbeat(0, 1, 0)  # the command counts as heard
