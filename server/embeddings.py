"""POST /v1/embeddings: inputs to prompts, vectors to the reply."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from engines.base import Embeds
from engines.errors import InvalidRequest, UnsupportedOperation, UnsupportedParameter
from engines.types import EmbeddingRequest, Embeddings, PartsPrompt, Prompt, Text, TokensPrompt
from server.models import ServedModel
from server.protocol import EmbeddingsRequest
from server.replies import EmbeddingBody, EmbeddingList, EmbeddingUsage, encode

_FLOAT = struct.Struct("<f")

LARGE = 100_000
"""Bytes of vectors from which the reply is written in a thread, so that others are not held up."""


async def embeddings_body(wire: EmbeddingsRequest, model: ServedModel, request_id: str) -> bytes:
    """Embed the inputs and return the reply as JSON.

    Raises `UnsupportedOperation` for a model that makes no embeddings.
    """
    if not isinstance(model.engine, Embeds):
        raise UnsupportedOperation("this model makes no embeddings")
    for name, value in (wire.model_extra or {}).items():
        if value is not None:
            raise UnsupportedParameter(name, model.engine.name)
    prompts = _prompts(wire)
    with _naming_input(wire):
        request = EmbeddingRequest(request_id, prompts, wire.dimensions)
        embeddings = await model.engine.embed(request)
    if sum(map(len, embeddings.vectors)) > LARGE:
        return await anyio.to_thread.run_sync(_body, wire, model, embeddings)
    return _body(wire, model, embeddings)


def _prompts(wire: EmbeddingsRequest) -> tuple[Prompt, ...]:
    given = wire.input
    if isinstance(given, str):
        return (_prompt(given),)
    if isinstance(given[0], int):
        return (TokensPrompt(tuple(given)),)
    return tuple(map(_prompt, given))


def _prompt(item: str | list[int]) -> Prompt:
    return PartsPrompt((Text(item),)) if isinstance(item, str) else TokensPrompt(tuple(item))


@contextmanager
def _naming_input(wire: EmbeddingsRequest) -> Iterator[None]:
    """Name an input as the client wrote it: one alone has no number."""
    try:
        yield
    except InvalidRequest as error:
        is_alone = isinstance(wire.input, str) or isinstance(wire.input[0], int)
        if is_alone and error.param == "input[0]":
            error.param = "input"
        raise


def _body(wire: EmbeddingsRequest, model: ServedModel, embeddings: Embeddings) -> bytes:
    as_text = wire.encoding_format == "base64"
    data = [
        EmbeddingBody(i, base64.b64encode(v).decode() if as_text else _numbers(v))
        for i, v in enumerate(embeddings.vectors)
    ]
    n_tokens = embeddings.prompt_tokens
    return encode(EmbeddingList(data, model.name, EmbeddingUsage(n_tokens, n_tokens)))


def _numbers(vector: bytes) -> list[float]:
    return [number for (number,) in _FLOAT.iter_unpack(vector)]
