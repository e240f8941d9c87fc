"""The core for a model that only reads (BERT and its like): embeddings, and no answers."""

from __future__ import annotations

from collections.abc import Generator

from engines.core import EmbeddedPart, StepOutput
from engines.decoding.prompt import PromptTokenizer
from engines.errors import EngineUnavailable, ModelLoadError, UnsupportedOperation
from engines.llama_cpp.binding import Model
from engines.llama_cpp.config import LlamaCppOptions
from engines.llama_cpp.embedding import Embedder
from engines.threads import default_threads
from engines.types import EmbeddingRequest, GenerationRequest, Prompt


class EncoderCore:
    """A loaded encoder; see `engines.core.Core` and `engines.core.EmbedsInParts`.

    Takes the model over: closes it when its context cannot be opened (`ModelLoadError`), too.
    """

    def __init__(self, model: Model, options: LlamaCppOptions) -> None:
        self._model = model
        self._tokenizer = PromptTokenizer(model.vocabulary)
        self._embedder = Embedder(model, options, options.n_threads or default_threads())
        try:
            self._embedder.open()
        except ModelLoadError:
            model.close()
            raise
        self._is_closed = False
        self.detail = f"{model.description}, embeddings of {model.embedding_length} dimensions"

    @property
    def generates(self) -> bool:
        """False: this model only reads."""
        return False

    @property
    def context_length(self) -> int:
        """Tokens one text may have."""
        return self._embedder.limit

    def submit(self, request: GenerationRequest) -> None:  # noqa: ARG002 - the protocol's name
        """Refuse: there is nothing here that generates."""
        raise UnsupportedOperation(
            "this model makes embeddings (POST /v1/embeddings) and generates no text"
        )

    def cancel(self, request_id: str) -> None:
        """Do nothing: no request is ever taken."""

    def has_work(self) -> bool:
        """Tell that no step is needed."""
        return False

    def step(self) -> list[StepOutput]:
        """Do nothing."""
        return []

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt, without those that close a text to be embedded."""
        self._check_open()
        return tuple(self._tokenizer.encode(prompt))

    def embed(self, request: EmbeddingRequest) -> Generator[EmbeddedPart, None, None]:
        """Yield the vectors of a request."""
        self._check_open()
        return self._embedder.embed(request)

    def close(self) -> None:
        """Free the model; safe to call twice."""
        self._is_closed = True
        self._embedder.close()
        self._model.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise EngineUnavailable("the llama_cpp engine is closed")
