"""The echo engine: answers with the prompt's own words, for demos, and with faults on demand.

It runs in-process as `EchoEngine`, or as a core in a child process (`create_core`), where it can
crash or hang as a native library would.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from engines.echo_core import create_core
from engines.echo_reply import EchoOptions, EchoReply, prompt_pieces, token_id
from engines.errors import EngineCrashed, EngineOverloaded, EngineUnavailable, ModelLoadError
from engines.options import read_options
from engines.types import Event, GenerationRequest, Health, Prompt

__all__ = ["EchoEngine", "EchoOptions", "EchoState", "create_core"]

_REMEMBERED_ABORTS = 1000


@dataclass(frozen=True, slots=True)
class EchoState:
    """What the in-process engine does: ids of running requests, and of those closed early."""

    running: tuple[str, ...]
    aborted: tuple[str, ...]


class EchoEngine:
    """The echo engine in this process. Keyword arguments are those of `EchoOptions`."""

    name = "echo"

    def __init__(self, **options: Any) -> None:
        self._options = read_options(EchoOptions, options)
        self._running: dict[int, str] = {}
        self._aborted: deque[str] = deque(maxlen=_REMEMBERED_ABORTS)
        self._health = Health(False, "not started")
        self._closed = asyncio.Event()

    async def start(self) -> None:
        """Pretend to load for `load_seconds`. Raises `ModelLoadError` with `fail_load`."""
        if self._closed.is_set():
            raise EngineUnavailable("the 'echo' engine is closed")
        self._health = Health(False, "loading")
        await asyncio.sleep(self._options.load_seconds)
        if self._options.fail_load or self._options.crash_load:
            self._health = Health(False, "loading failed")
            raise ModelLoadError("the echo engine was told to fail loading")
        self._health = Health(True)

    @property
    def context_length(self) -> int:
        """Tokens one request may hold, prompt and answer together."""
        return self._options.context_length

    @property
    def state(self) -> EchoState:
        """The running requests, and the latest of those whose stream was closed early."""
        return EchoState(tuple(self._running.values()), tuple(self._aborted))

    def health(self) -> Health:
        """Ready between `start` and `aclose`."""
        return self._health

    async def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt; there is no BOS."""
        return tuple(map(token_id, prompt_pieces(prompt)))

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """Repeat the prompt. Raises `InvalidRequest`, `EngineOverloaded`, `EngineUnavailable`."""
        if not self._health.is_ready:
            raise EngineUnavailable(f"the 'echo' engine is not available: {self._health.detail}")
        if len(self._running) >= self._options.max_requests:
            raise EngineOverloaded("the 'echo' engine runs as many requests as it may")
        reply = EchoReply(request, self._options)
        self._running[id(reply)] = request.request_id
        try:
            await asyncio.sleep(self._options.prefill_seconds)
            while not reply.is_over:
                await self._pause(reply)
                for event in reply.advance():
                    yield event
        finally:
            del self._running[id(reply)]
            if not reply.is_over:
                self._aborted.append(request.request_id)

    async def _pause(self, reply: EchoReply) -> None:
        """Wait for the time of the next token; suffer the fault that is due."""
        if reply.fault == "hang":
            await self._closed.wait()
        rate = self._options.tokens_per_second
        await asyncio.sleep(1 / rate if rate else 0)
        if reply.fault == "crash":
            raise EngineCrashed("the 'echo' engine died while this request was running")
        if not self._health.is_ready:
            raise EngineUnavailable("the 'echo' engine was closed")

    async def aclose(self) -> None:
        """Refuse further requests; running ones end with `EngineUnavailable`."""
        self._health = Health(False, "closed")
        self._closed.set()
