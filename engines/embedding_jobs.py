"""Requests for vectors inside a child process: advanced a piece at a time between its steps."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator

from engines import wire
from engines.core import Core, EmbeddedPart, EmbedsInParts
from engines.errors import EngineError, EngineOverloaded, UnsupportedOperation, internal_error
from engines.types import EmbeddingRequest
from engines.wire_types import pack_error, unpack_prompt

MAX_JOBS = 64
"""Requests that may wait or run; further ones are told to come again."""

Job = Generator[EmbeddedPart, None, None]


class EmbeddingJobs:
    """Takes turns between requests: a small one never waits for all of a large one.

    The turn passes on after a part with vectors: before it, a request may hold the core's memory.
    """

    def __init__(self, core: Core, send: Callable[[wire.Embedded], None]) -> None:
        self._core = core
        self._send = send
        self._jobs: dict[str, Job] = {}

    def __bool__(self) -> bool:
        """Whether `advance` would do anything."""
        return bool(self._jobs)

    def open(self, command: wire.Embed) -> None:
        """Take a request in, or answer why not."""
        request_id = command.request_id
        try:
            self._jobs[request_id] = self._begin(command)
        except EngineError as error:
            self._send(wire.Embedded(request_id, error=pack_error(error)))

    def _begin(self, command: wire.Embed) -> Job:
        if not isinstance(self._core, EmbedsInParts):
            raise UnsupportedOperation("this model makes no embeddings")
        if len(self._jobs) >= MAX_JOBS:
            raise EngineOverloaded(f"{MAX_JOBS} requests for embeddings wait; try again later")
        prompts = tuple(map(unpack_prompt, command.prompts))
        return self._core.embed(EmbeddingRequest(command.request_id, prompts, command.dimensions))

    def cancel(self, request_id: str) -> None:
        """Drop a request; unknown ids are ignored."""
        job = self._jobs.pop(request_id, None)
        if job is not None:
            job.close()

    def advance(self) -> None:
        """Do one piece of work for the request whose turn it is, and send what it gave."""
        request_id, job = next(iter(self._jobs.items()))
        message = self._next_part(request_id, job)
        if message.is_last or message.error is not None:
            del self._jobs[request_id]
        elif message.vectors:
            self._jobs[request_id] = self._jobs.pop(request_id)
        self._send(message)

    def _next_part(self, request_id: str, job: Job) -> wire.Embedded:
        try:
            part = next(job, None)
        except EngineError as error:
            return wire.Embedded(request_id, error=pack_error(error))
        except Exception as error:
            traceback.print_exc()
            return wire.Embedded(request_id, error=pack_error(internal_error(error)))
        if part is None:
            return wire.Embedded(request_id, is_last=True)
        return wire.Embedded(request_id, part.vectors, part.prompt_tokens)
