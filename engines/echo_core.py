"""The echo engine as a core for a child process, with the faults of a native library."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engines.core import StepOutput
from engines.echo_reply import EchoOptions, EchoReply, prompt_pieces, token_id
from engines.errors import EngineOverloaded, ModelLoadError
from engines.types import GenerationRequest, Prompt

_POLL_SECONDS = 0.02


def create_core(**options: Any) -> EchoCore:
    """Build the core; keyword arguments are those of `EchoOptions`. Raises `ModelLoadError`."""
    echo_options = EchoOptions(**options)
    time.sleep(echo_options.load_seconds)
    if echo_options.fail_load:
        raise ModelLoadError("the echo engine was told to fail loading")
    if echo_options.crash_load:
        _crash(echo_options)
    return EchoCore(echo_options)


@dataclass(slots=True)
class _Running:
    """A request, and the earliest time (monotonic seconds) of its next token."""

    reply: EchoReply
    due: float


class EchoCore:
    """Advances every request whose next token is due; waits a little when none is."""

    def __init__(self, options: EchoOptions) -> None:
        self._options = options
        self._running: dict[str, _Running] = {}

    @property
    def context_length(self) -> int:
        """Tokens one request may hold, prompt and answer together."""
        return self._options.context_length

    def submit(self, request: GenerationRequest) -> None:
        """Take a request in. Raises `InvalidRequest` or `EngineOverloaded`."""
        if len(self._running) >= self._options.max_requests:
            raise EngineOverloaded("the 'echo' engine runs as many requests as it may")
        due = time.monotonic() + self._options.prefill_seconds + self._token_seconds
        self._running[request.request_id] = _Running(EchoReply(request, self._options), due)

    @property
    def _token_seconds(self) -> float:
        rate = self._options.tokens_per_second
        return 1 / rate if rate else 0.0

    def cancel(self, request_id: str) -> None:
        """Drop a request."""
        self._running.pop(request_id, None)

    def has_work(self) -> bool:
        """Whether any request runs."""
        return bool(self._running)

    def step(self) -> Sequence[StepOutput]:
        """Produce the tokens that are due; none after waiting for some that are not."""
        now = time.monotonic()
        due = [(key, run) for key, run in self._running.items() if run.due <= now]
        if not due:
            first = min(run.due for run in self._running.values())
            time.sleep(min(first - now, _POLL_SECONDS))
        return [self._advance(request_id, run) for request_id, run in due]

    def _advance(self, request_id: str, run: _Running) -> StepOutput:
        if run.reply.fault == "crash":
            _crash(self._options)
        if run.reply.fault == "hang":
            _hang(self._options)
        output = StepOutput(request_id, run.reply.advance())
        run.due += self._token_seconds
        if run.reply.is_over:
            del self._running[request_id]
        return output

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt; there is no BOS."""
        return tuple(map(token_id, prompt_pieces(prompt)))

    def close(self) -> None:
        """Forget every request."""
        self._running.clear()


def _crash(options: EchoOptions) -> None:
    """Die in the way that was asked for."""
    match options.crash_kind:
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise RuntimeError("the echo engine was told to fail")


def _hang(options: EchoOptions) -> None:
    """Never return."""
    while True:
        if options.hang_kind == "sleep":
            time.sleep(3600)
