"""The inside of a local engine: a model that advances by steps, owned by one thread.

A core knows nothing of asyncio, sockets or processes. `engines.worker` runs it in a child
process, because the libraries below it can crash the interpreter; `engines.supervisor` is what
the server holds, an ordinary `Engine`. A factory of cores that works for minutes says so with
`engines.load_progress`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from engines.errors import EngineError
from engines.types import EmbeddingRequest, Event, GenerationRequest, Prompt


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What one step produced for one request: events in order, or the error that ended it.

    A request is over with its `Usage` event or with an `error`.
    """

    request_id: str
    events: tuple[Event, ...] = ()
    error: EngineError | None = None


class Core(Protocol):
    """A loaded model and its running requests. Every call comes from the same thread."""

    @property
    def context_length(self) -> int:
        """Tokens one request may hold, prompt and answer together."""
        ...

    def submit(self, request: GenerationRequest) -> None:
        """Take a request in; it advances with `step`.

        Raises `InvalidRequest` for one that cannot be run and `EngineOverloaded` when the queue
        is full; other requests are untouched by either.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """Drop a request and free what it held; unknown ids are ignored. No more output."""
        ...

    def has_work(self) -> bool:
        """Tell whether `step` would advance anything."""
        ...

    def step(self) -> Sequence[StepOutput]:
        """Advance every active request once; return what that produced, one entry a request."""
        ...

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids exactly as a request with this prompt would use them."""
        ...

    def close(self) -> None:
        """Free the model; safe to call twice."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddedPart:
    """What a piece of work gave: vectors with the index of their prompt, often none.

    A vector is as `engines.types.Embeddings` has them. `prompt_tokens` counts the tokens of the
    prompts whose vectors these are.
    """

    vectors: tuple[tuple[int, bytes], ...] = ()
    prompt_tokens: int = 0


@runtime_checkable
class EmbedsInParts(Protocol):
    """A core that can turn prompts into vectors between its steps."""

    def embed(self, request: EmbeddingRequest) -> Generator[EmbeddedPart, None, None]:
        """Embed the prompts of a request, yielding after each bounded piece of work.

        The prompts may be finished in any order. Between a part without vectors and the next
        one, memory may be held: no other request's generator must be advanced meanwhile.
        Closing the generator frees it. Raises what `submit` does, while iterated.
        """
        ...
