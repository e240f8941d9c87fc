"""The vectors that a child process sends for one request, part by part."""

from __future__ import annotations

import asyncio

from engines import wire
from engines.errors import EngineError
from engines.types import EmbeddingRequest, Embeddings
from engines.wire_types import unpack_error


class EmbeddingAnswer:
    """Collects the parts; `whole` completes with the last one, or with the error."""

    def __init__(self, request: EmbeddingRequest) -> None:
        self.request = request
        self.whole: asyncio.Future[Embeddings] = asyncio.get_running_loop().create_future()
        self._vectors: dict[int, bytes] = {}
        self._prompt_tokens = 0

    def take(self, message: wire.Embedded) -> None:
        """Add a part."""
        self._vectors.update(message.vectors)
        self._prompt_tokens += message.prompt_tokens
        if message.error is not None:
            self.fail(unpack_error(message.error))
        elif message.is_last:
            self._finish()

    def fail(self, error: EngineError) -> None:
        """End the request with an error."""
        if not self.whole.done():  # whoever waited may have gone
            self.whole.set_exception(error)

    def _finish(self) -> None:
        indexes = range(len(self.request.prompts))
        if self._vectors.keys() != {*indexes}:
            self.fail(EngineError("the engine left an input without its vector"))
        elif not self.whole.done():
            vectors = tuple(self._vectors[index] for index in indexes)
            self.whole.set_result(Embeddings(vectors, self._prompt_tokens))
