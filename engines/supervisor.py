"""An engine whose core runs in a child process that may die: watched, ended, started again."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from engines import wire
from engines.calls import Calls
from engines.child_process import ChildProcess
from engines.errors import EngineCrashed, EngineError, EngineUnavailable, ModelLoadError
from engines.restarts import RestartLimits, RestartPolicy
from engines.types import (
    EmbeddingRequest,
    Embeddings,
    Event,
    GenerationRequest,
    Health,
    Prompt,
)
from engines.watchdog import Watchdog, WatchLimits, processor_seconds
from engines.wire_types import unpack_error

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """The patience of a supervisor. `grace` is how many seconds a child may take to exit."""

    watch: WatchLimits = field(default_factory=WatchLimits)
    restart: RestartLimits = field(default_factory=RestartLimits)
    grace: float = 5.0
    max_crashes_per_request: int = 2


class SupervisedEngine:
    """Runs the core that `core` (`module:function`) builds from `options`, in a child process.

    An ordinary engine towards its caller. When the child dies or hangs, its open streams raise
    `EngineCrashed` and a new child is started; meanwhile `generate` raises `EngineUnavailable`.
    A request that was running at two crashes is refused with `QuarantinedRequest`. `environment`
    is added to the few variables a child inherits. Must be used in one event loop.
    """

    def __init__(
        self,
        *,
        name: str,
        core: str,
        options: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._name = name
        self._launch = wire.Launch(core, dict(options))
        self._environment = dict(environment or {})
        self._limits = limits or Limits()
        self._restarts = RestartPolicy(self._limits.restart)
        self._calls = Calls(name, self._limits.max_crashes_per_request)
        self._child: ChildProcess | None = None
        self._is_ready = False
        self._detail = "not started"
        self._ready_expected_at = 0.0
        self._load_seconds = 1.0
        self._load_progress_at = 0.0
        self._context_length = 0
        self._generates = True
        self._load_error: EngineError | None = None
        self._wake_up = asyncio.Event()
        self._first_load: asyncio.Future[None] | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """The engine's name in settings and errors."""
        return self._name

    @property
    def context_length(self) -> int:
        """Tokens one request may hold; 0 before the first load."""
        return self._context_length

    @property
    def generates(self) -> bool:
        """Whether the model generates text; True before the first load."""
        return self._generates

    @property
    def pid(self) -> int | None:
        """Process id of the running child, for operators and tests."""
        return self._child.pid if self._child is not None else None

    def health(self) -> Health:
        """Tell from the child's state whether a request would be taken."""
        return Health(self._is_ready, self._detail)

    async def start(self) -> None:
        """Start the child and wait until it has loaded.

        Raises `ModelLoadError`, or what the core raised, when this first load fails; that is not
        tried again. Cancelling it closes the engine.
        """
        if self._is_closed:
            raise EngineUnavailable(f"the {self._name!r} engine is closed")
        first_load = self._first_load
        if first_load is None or self._supervision is None or self._supervision.done():
            first_load = self._first_load = asyncio.get_running_loop().create_future()
            self._supervision = asyncio.create_task(
                self._supervise(first_load), name=f"{self._name} supervision"
            )
        try:
            await asyncio.shield(first_load)
        except asyncio.CancelledError:
            self._begin_close()
            raise

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """Run one request in the child; closing the iterator cancels it there at once."""
        with self._calls.open(self._ready_child(), request) as stream:
            while not stream.is_over:
                for event in await stream.next_events():
                    yield event

    async def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """Ask the child for the token ids of a prompt."""
        return await self._calls.tokenize(self._ready_child(), prompt)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Have the child turn prompts into vectors; cancelling it cancels that at once."""
        return await self._calls.embed(self._ready_child(), request)

    def _ready_child(self) -> ChildProcess:
        if self._child is None or not self._is_ready:
            wait = math.ceil(self._ready_expected_at - time.monotonic())
            state = self._detail.partition(":")[0]  # the rest, paths perhaps, is the operator's
            raise EngineUnavailable(
                f"the {self._name!r} engine is not available: {state}",
                retry_after=min(max(wait, 1), 60),
            )
        return self._child

    async def aclose(self) -> None:
        """End the child and every open stream; returns when nothing of them is left."""
        self._begin_close()
        if self._closing is not None:
            # The closing goes on even if whoever waits for it is cancelled.
            await asyncio.shield(self._closing)

    def _begin_close(self) -> None:
        self._is_closed = True
        self._wake_up.set()
        if self._supervision is None:
            self._set_unready("closed")
        elif self._closing is None:
            self._closing = asyncio.create_task(
                self._close(self._supervision), name=f"{self._name} closing"
            )

    async def _close(self, supervision: asyncio.Task[None]) -> None:
        was_ready = self._is_ready
        self._set_unready("closed")
        self._calls.fail_all(lambda: EngineUnavailable(f"the {self._name!r} engine was closed"))
        if self._child is not None and was_ready:
            await self._child.shut_down(self._limits.grace)
        elif self._child is not None:
            self._child.kill()
        await asyncio.wait({supervision})

    async def _supervise(self, first_load: asyncio.Future[None]) -> None:
        """Run one child after another until the engine is closed or its first load fails."""
        failure = "loading was interrupted"
        try:
            while not self._is_closed:
                self._set_unready("loading")
                failure = await self._run_child(first_load)
                if self._is_closed or not first_load.done():
                    break
                await self._wait_before_restart(failure)
        finally:
            self._set_unready("closed" if self._is_closed else f"loading failed: {failure}")
            self._end_first_load(first_load, failure)

    async def _wait_before_restart(self, failure: str) -> None:
        delay = self._restarts.note_failure()
        self._ready_expected_at = time.monotonic() + delay + self._load_seconds
        self._set_unready(f"restarting: {failure}")
        logger.error("%s: %s; next start in %g s", self._name, failure, delay)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake_up.wait(), delay)

    def _end_first_load(self, first_load: asyncio.Future[None], failure: str) -> None:
        if first_load.done():
            return
        if self._is_closed:
            first_load.set_exception(EngineUnavailable(f"the {self._name!r} engine was closed"))
        else:
            first_load.set_exception(self._load_error or ModelLoadError(failure))
        first_load.exception()  # whoever waited may have gone

    async def _run_child(self, first_load: asyncio.Future[None]) -> str:
        """Run one child to its end; return what ended it."""
        self._load_error = None
        started = self._load_progress_at = time.monotonic()

        def receive(message: wire.ToParent) -> None:
            match message:
                case wire.Loaded():
                    self._load_seconds = time.monotonic() - started
                    self._set_ready(message)
                    if not first_load.done():
                        first_load.set_result(None)
                case wire.LoadProgress(detail):
                    self._note_load_progress(detail)
                case wire.LoadFailed():
                    self._load_error = unpack_error(message.error)
                case _:
                    self._calls.receive(message)

        try:
            child = await ChildProcess.spawn(self._name, self._launch, self._environment, receive)
        except Exception as error:  # whatever it is, the next attempt may succeed
            return f"the process of the {self._name!r} engine cannot be started: {error}"
        self._child = child
        if self._is_closed:
            child.kill()
        try:
            await self._watch(child)
        finally:
            failure = await self._bury(child)
        return failure

    def _set_ready(self, loaded: wire.Loaded) -> None:
        if self._is_closed:
            return
        self._context_length = loaded.context_length
        self._generates = loaded.generates
        self._is_ready, self._detail = True, ""
        self._restarts.note_ready()
        logger.info("%s: ready after %.1f s %s", self._name, self._load_seconds, loaded.detail)

    def _note_load_progress(self, detail: str) -> None:
        if not self._is_closed:
            self._load_progress_at = time.monotonic()
            self._set_unready(f"loading: {detail}")
            logger.info("%s: %s", self._name, detail)

    def _set_unready(self, detail: str) -> None:
        self._is_ready, self._detail = False, detail

    async def _watch(self, child: ChildProcess) -> None:
        """Wait for the end of the child; bring it about when the child hangs."""
        limits = self._limits.watch
        watchdog = Watchdog(limits, lambda: processor_seconds(child.pid))
        while not child.lost.done():
            await asyncio.wait({child.lost}, timeout=watchdog.interval)
            is_owing = not self._is_ready or self._calls.is_owing(child)
            fault = watchdog.look(child.frames_received, is_owing)
            loading = 0.0 if self._is_ready else time.monotonic() - self._load_progress_at
            if loading > limits.load_timeout:
                fault = f"it did not load within {limits.load_timeout:g} s"
            if fault is not None and not self._is_closed:
                child.kill(fault)

    async def _bury(self, child: ChildProcess) -> str:
        """Clear away a child that ended; tell its streams within half a second."""
        was_ready = self._is_ready
        self._child = None
        self._set_unready("its process died")
        reaping = asyncio.create_task(child.reap(), name=f"{self._name} reaping")
        await asyncio.wait({reaping}, timeout=0.5)
        failure = self._explain(child, was_ready)
        if not self._is_closed:
            self._calls.note_crash()
        self._calls.fail_all(
            lambda: EngineCrashed(f"the {self._name!r} engine died while this request was running")
        )
        await asyncio.wait({reaping})
        return failure

    def _explain(self, child: ChildProcess, was_ready: bool) -> str:
        """Say what ended a child; while loading, its last words are the best explanation."""
        if self._load_error is not None:
            return str(self._load_error)
        end = f"the process of the {self._name!r} engine died: {child.explain_end()}"
        if was_ready or not child.last_words():
            return end
        return f"{end}; its last words:\n{child.last_words()}"
