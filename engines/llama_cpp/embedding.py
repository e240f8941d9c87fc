"""Texts to vectors, in pieces of work so short that running answers hardly notice.

The vector of a text is made of its tokens' last hidden states: their mean, the first or the last,
as the model was trained, and then divided by its Euclidean norm.

A decoder is given as many tokens at a time as it computes in about `PIECE_SECONDS`, at least
`LEAST_CHUNK` and at most `CHUNK` of them: that is how long running answers wait between two steps.
Short texts share a piece, a longer one takes several. An encoder, beside which nothing runs, takes
a text in one piece.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engines.core import EmbeddedPart
from engines.decoding.prompt import PromptTokenizer
from engines.errors import (
    ContextLengthExceeded,
    EngineError,
    InputTooLong,
    InvalidParameter,
    InvalidRequest,
    UnsupportedOperation,
    UnsupportedParameter,
)
from engines.llama_cpp.binding import ContextParams, EmbeddingContext, Model
from engines.llama_cpp.config import LlamaCppOptions, Pooling
from engines.llama_cpp.sizing import choose_size, free_memory
from engines.types import EmbeddingRequest, PartsPrompt, Prompt, Text

PIECE_SECONDS = 0.2
CHUNK = 256
"""Most tokens of a piece of work."""
LEAST_CHUNK = 16
"""Fewer at a time would cost much more time for each: they share the reading of the weights."""

_SLOTS = 32
# Characters tokenised in a piece of work.
_TEXT_CHUNK = 32_768

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Input:
    """A prompt as tokens, and its place in the request."""

    index: int
    tokens: NDArray[np.int32]


class Embedder:
    """Makes the vectors of one model, in a context of its own that is opened at first use.

    That context holds one text of the longest kind: memory beside that of the slots.
    """

    def __init__(self, model: Model, options: LlamaCppOptions, n_threads: int) -> None:
        self._model = model
        self._options = options
        self._n_threads = n_threads
        self._tokenizer = PromptTokenizer(model.vocabulary)
        self._pooling: Pooling = options.pooling or model.pooling or "mean"
        self._n_slots = 1 if model.has_recurrent_state else _SLOTS
        self._tokens_per_second = 1.0  # until the first, short piece has shown it
        self._context: EmbeddingContext | None = None
        self._limit = options.resolve_context_length(model.trained_context_length)

    @property
    def limit(self) -> int:
        """Tokens of the longest text, those that the model puts around it included."""
        return self._limit

    def embed(self, request: EmbeddingRequest) -> Generator[EmbeddedPart, None, None]:
        """Yield the vectors of a request; see `engines.core.EmbedsInParts`."""
        self._check(request)
        context = self.open()
        inputs = yield from self._encode_all(request.prompts)
        for group in self._groups(inputs):
            try:
                vectors = yield from self._run(context, group)
            finally:
                context.clear()
            pairs = zip(group, vectors, strict=True)
            n_tokens = sum(len(each.tokens) for each in group)
            yield EmbeddedPart(tuple((each.index, _packed(v)) for each, v in pairs), n_tokens)

    def open(self) -> EmbeddingContext:
        """Open the context unless it is open. Raises `ModelLoadError`."""
        if self._context is None:
            self._limit = self._fitting_limit()
            self._context = EmbeddingContext(self._model, self._params())
        return self._context

    def close(self) -> None:
        """Free the context; safe to call twice, and before the model is closed."""
        if self._context is not None:
            self._context.close()

    def _check(self, request: EmbeddingRequest) -> None:
        if self._model.is_reranker:
            raise UnsupportedOperation("this model ranks texts and makes no embeddings")
        length = self._model.embedding_length
        if request.dimensions not in (None, length):
            raise UnsupportedParameter(
                "dimensions", "llama_cpp", f"the embeddings of this model have {length} dimensions"
            )

    def _fitting_limit(self) -> int:
        """Return how many tokens of context fit into the memory that is free now."""
        free = None if self._model.is_offloaded else free_memory()
        if self._model.is_encoder:
            free = None  # it keeps no keys and values
        options = replace(self._options, n_slots=1)
        per_token = options.kv_bytes(self._model.kv_numbers_per_token)
        return choose_size(
            options, self._model.trained_context_length, per_token, free
        ).context_length

    def _params(self) -> ContextParams:
        longest_piece = max(self._limit, CHUNK) if self._model.is_encoder else CHUNK
        return ContextParams(
            n_slots=self._n_slots,
            context_length=max(self._limit, CHUNK),
            n_batch=longest_piece,
            n_threads=self._n_threads,
            flash_attn=self._options.kv_is_quantised or self._options.flash_attn,
            kv_type=self._options.kv_type,
        )

    def _encode_all(self, prompts: Sequence[Prompt]) -> Generator[EmbeddedPart, None, list[_Input]]:
        """Tokenise the prompts, yielding after each piece of work."""
        inputs: list[_Input] = []
        characters = 0
        for index, prompt in enumerate(prompts):
            characters += _length(prompt)
            if characters > _TEXT_CHUNK:
                characters = 0
                yield EmbeddedPart()
            inputs.append(_Input(index, np.array(self._encode(index, prompt), np.int32)))
        return inputs

    def _encode(self, index: int, prompt: Prompt) -> list[int]:
        """Return the tokens of a prompt. Raises `InvalidRequest`, which names it."""
        name = f"input[{index}]"
        try:
            tokens = self._tokenizer.encode(prompt, self._limit)
        except ContextLengthExceeded as error:
            raise InputTooLong(
                self._limit, error.prompt_tokens, name, is_lower_bound=True
            ) from error
        except InvalidParameter as error:
            raise InvalidParameter(
                name, f"{error}: send text, or the ids that this model's own tokenizer gives"
            ) from error
        except InvalidRequest as error:
            error.param = name
            raise
        if isinstance(prompt, PartsPrompt):
            tokens += self._model.vocabulary.closing
        if len(tokens) > self._limit:
            raise InputTooLong(self._limit, len(tokens), name)
        return tokens

    @property
    def _chunk(self) -> int:
        """Tokens of the next piece of work."""
        if self._model.is_encoder:
            return CHUNK
        return int(max(LEAST_CHUNK, min(self._tokens_per_second * PIECE_SECONDS, CHUNK)))

    def _groups(self, inputs: Sequence[_Input]) -> Iterator[list[_Input]]:
        """Cut the inputs into groups: several of a piece's tokens together, or a longer one."""
        group: list[_Input] = []
        n_tokens = 0
        for each in inputs:
            n_tokens += len(each.tokens)
            if group and (n_tokens > self._chunk or len(group) == self._n_slots):
                yield group
                group, n_tokens = [], len(each.tokens)
            group.append(each)
        if group:
            yield group

    def _run(
        self, context: EmbeddingContext, group: Sequence[_Input]
    ) -> Generator[EmbeddedPart, None, list[Vector]]:
        """Compute texts that share a piece, or one that takes a piece or more."""
        if len(group) > 1 or self._model.is_encoder:
            return [self._pool(rows) for rows in self._compute(context, group)]
        (only,) = group
        vector = Running(self._pooling)
        start = 0
        while True:
            chunk = _Input(only.index, only.tokens[start : start + self._chunk])
            vector.add(self._compute(context, [chunk], start)[0])
            start += len(chunk.tokens)
            if start == len(only.tokens):
                return [vector.result()]
            yield EmbeddedPart()

    def _pool(self, rows: Vector) -> Vector:
        vector = Running(self._pooling)
        vector.add(rows)
        return vector.result()

    def _compute(
        self, context: EmbeddingContext, group: Sequence[_Input], start: int = 0
    ) -> list[Vector]:
        """Run texts from position `start` on; return the vectors of each one's tokens."""
        batch, row, ends = context.batch, 0, []
        for slot, each in enumerate(group):
            end = row + len(each.tokens)
            batch.tokens[row:end] = each.tokens
            batch.positions[row:end] = np.arange(start, start + len(each.tokens))
            batch.slots[row:end] = slot
            ends.append(row := end)
        started = time.perf_counter()
        vectors = context.run(row)
        self._tokens_per_second = row / max(time.perf_counter() - started, 1e-6)
        return np.split(vectors, ends[:-1])


class Running:
    """The pooled vector of a text whose tokens' vectors come in parts."""

    def __init__(self, pooling: Pooling) -> None:
        self._pooling = pooling
        self._n_tokens = 0
        self._vector = np.zeros(0, np.float64)

    def add(self, rows: Vector) -> None:
        """Take the vectors of the next tokens, at least one."""
        is_first = self._n_tokens == 0
        self._n_tokens += len(rows)
        match self._pooling:
            case "mean":
                total = rows.sum(axis=0, dtype=np.float64)
                self._vector = total if is_first else self._vector + total
            case "cls":
                self._vector = rows[0].astype(np.float64) if is_first else self._vector
            case "last":
                self._vector = rows[-1].astype(np.float64)

    def result(self) -> Vector:
        """Return the vector, its norm 1; the norm makes a mean of the sum."""
        norm = float(np.linalg.norm(self._vector))
        if not np.isfinite(norm) or norm == 0:
            raise EngineError("the model gave an embedding without a direction")
        return (self._vector / norm).astype(np.float32)


def _length(prompt: Prompt) -> int:
    if not isinstance(prompt, PartsPrompt):
        return 0
    return sum(len(part.text) for part in prompt.parts if isinstance(part, Text))


def _packed(vector: Vector) -> bytes:
    return vector.astype("<f4").tobytes()
