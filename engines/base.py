"""What every engine offers, and the further abilities that some have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from engines.types import (
    EmbeddingRequest,
    Embeddings,
    Event,
    GenerationRequest,
    Health,
    Prompt,
)


class Engine(Protocol):
    """Turns one prompt into a stream of events.

    `generate` yields, per choice, any number of deltas and exactly one `Finish`, then one
    `Usage` as the last event. Closing the iterator aborts the request and frees what it held;
    consumers therefore use `contextlib.aclosing`. Failures are raised as `EngineError`, before
    or during iteration.
    """

    @property
    def name(self) -> str:
        """The engine's name in settings and errors: `llama_cpp`."""
        ...

    async def start(self) -> None:
        """Load the model; return when `generate` may be called. Raises `ModelLoadError`."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """Stream the events of one request."""
        ...

    def health(self) -> Health:
        """Tell at once, from what is known, whether a request would be taken."""
        ...

    async def aclose(self) -> None:
        """Release the model; safe to call twice, and before `start`."""
        ...


@runtime_checkable
class Tokenizes(Protocol):
    """An engine that can show the token ids of a prompt."""

    async def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids exactly as `generate` would use them, BOS included."""
        ...


@runtime_checkable
class Embeds(Protocol):
    """An engine that can turn prompts into vectors."""

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return the vectors of all prompts; cancelling it aborts the request.

        Raises `UnsupportedOperation` for a model that makes none, and otherwise what `generate`
        does.
        """
        ...


@runtime_checkable
class MayOnlyEmbed(Protocol):
    """An engine whose model may be one that generates no text."""

    @property
    def generates(self) -> bool:
        """Whether it generates text; known once `start` has returned, True before."""
        ...


@runtime_checkable
class HasContextLength(Protocol):
    """An engine that knows how many tokens one request may hold, prompt and answer together."""

    @property
    def context_length(self) -> int:
        """Tokens; known once `start` has returned."""
        ...
