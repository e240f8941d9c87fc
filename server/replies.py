"""The replies of OpenAI's wire format, as msgspec structs: one is encoded per chunk.

Keys that OpenAI always sends are present even when null; those it leaves out are `UNSET`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

ChatFinish = Literal["stop", "length", "tool_calls", "content_filter"]


class ErrorDetail(Struct, frozen=True):
    """What went wrong; `param` names the field at fault, `code` is for programs."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(Struct, frozen=True):
    """The envelope of every error."""

    error: ErrorDetail


class PromptDetails(Struct, frozen=True):
    """Of the prompt tokens, those that came from a cache."""

    cached_tokens: int = 0


class CompletionDetails(Struct, frozen=True):
    """Of the completion tokens, those spent on reasoning."""

    reasoning_tokens: int = 0


class UsageBody(Struct, frozen=True):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails = PromptDetails()
    completion_tokens_details: CompletionDetails = CompletionDetails()


class TopLogprobBody(Struct, frozen=True):
    """One of the likeliest tokens at a position."""

    token: str
    logprob: float
    bytes: list[int]


class LogprobBody(Struct, frozen=True):
    """The chosen token at a position."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprobBody]


class ChatLogprobs(Struct, frozen=True):
    """Log probabilities of a choice; both keys are required."""

    content: list[LogprobBody]
    refusal: None = None


class FunctionBody(Struct, frozen=True):
    """A call's function: in a stream, the name comes in the first fragment only."""

    arguments: str
    name: str | UnsetType = UNSET


class ToolCallBody(Struct, frozen=True):
    """A tool call of a whole answer."""

    id: str
    function: FunctionBody
    type: str = "function"


class ToolCallFragment(Struct, frozen=True):
    """A fragment of a tool call in a stream; `index` is required in every one."""

    index: int
    function: FunctionBody
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class AssistantMessage(Struct, frozen=True):
    """The message of a whole answer."""

    content: str | None
    role: str = "assistant"
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallBody] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True):
    """One choice of a whole answer."""

    index: int
    message: AssistantMessage
    finish_reason: ChatFinish
    logprobs: ChatLogprobs | None = None


class ChatCompletion(Struct, frozen=True):
    """A whole answer."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageBody
    system_fingerprint: str
    object: str = "chat.completion"


class Delta(Struct, frozen=True):
    """What a chunk adds to a choice; `role` and `refusal` come in the first only."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallFragment] | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True):
    """A choice in a chunk: `finish_reason` is null until its last."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinish | None = None


class ChatChunk(Struct, frozen=True):
    """One event of a streamed answer. `usage` is null or absent until the last."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    usage: UsageBody | UnsetType | None = UNSET
    object: str = "chat.completion.chunk"


class TextLogprobs(Struct, frozen=True):
    """Log probabilities in the form of /v1/completions; offsets are in characters."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(Struct, frozen=True):
    """A choice of /v1/completions, in whole answers and in chunks."""

    index: int
    text: str
    finish_reason: str | None = None
    logprobs: TextLogprobs | None = None


class TextCompletion(Struct, frozen=True):
    """A whole answer or a chunk of /v1/completions: OpenAI calls both `text_completion`."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    system_fingerprint: str
    usage: UsageBody | UnsetType | None = UNSET
    object: str = "text_completion"


class EmbeddingBody(Struct, frozen=True):
    """The vector of one input: numbers, or the base64 of their float32 little-endian bytes."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingUsage(Struct, frozen=True):
    """Token counts of all inputs; nothing is generated."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True):
    """The vectors, in the order of the inputs."""

    data: list[EmbeddingBody]
    model: str
    usage: EmbeddingUsage
    object: str = "list"


class ModelBody(Struct, frozen=True):
    """One model. `parlm` tells more of it and is present only for a single model."""

    id: str
    created: int
    object: str = "model"
    owned_by: str = "parlm"
    parlm: dict[str, Any] | UnsetType = UNSET


class ModelList(Struct, frozen=True):
    """The models served."""

    data: list[ModelBody]
    object: str = "list"


encode = msgspec.json.Encoder().encode
"""Struct -> JSON bytes, UTF-8, without spaces."""
