"""The requests of OpenAI's wire format: what a client may send, checked once at the border.

Names and limits follow OpenAI's API description 2.3.0; the few further sampling fields are those
vLLM and llama.cpp made common. Fields nobody knows are kept (`model_extra`), so that an engine
which can honour one may, and any other refuses it by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)
from pydantic.json_schema import models_json_schema

Temperature = Annotated[float, Field(ge=0, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
StopString = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
LongText = Annotated[str, Field(max_length=4 * 2**20)]


class FieldError(ValueError):
    """A rule over several fields is broken; `param` is the one to change."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


# Where a body may hold very many values, checking ends at the first wrong one, and mappings are
# counted first: a million mistakes would otherwise be a million error objects.
T = TypeVar("T")
Many = Annotated[list[T], Field(fail_fast=True)]


def _at_most(limit: int) -> BeforeValidator:
    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > limit:
            raise ValueError(f"at most {limit} keys are allowed")
        return value

    return BeforeValidator(check)


JsonObject = dict[str, object]
"""Any JSON object: `server.body` has seen to what is in it, so that it is not looked at again."""


class Wire(BaseModel):
    """Base of all wire models: no coercion (`"1"` is no number), nothing infinite, frozen."""

    model_config = ConfigDict(
        strict=True, frozen=True, allow_inf_nan=False, extra="allow", protected_namespaces=()
    )


class ContentPart(Wire):
    """One part of a message's content. Only text parts can be served so far."""

    type: Literal["text", "refusal"]
    text: LongText | None = None
    refusal: LongText | None = None

    @model_validator(mode="after")
    def _has_its_text(self) -> ContentPart:
        if (self.text if self.type == "text" else self.refusal) is None:
            raise FieldError(self.type, f"a part of type {self.type} needs the field {self.type}")
        return self


class FunctionCall(Wire):
    """The name and the JSON arguments of a call an assistant message made."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    arguments: LongText = "{}"


class ToolCallIn(Wire):
    """A tool call in a message of the history."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Wire):
    """One turn of the history."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: LongText | Annotated[Many[ContentPart], Field(max_length=4096)] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: Annotated[Many[ToolCallIn], Field(max_length=128)] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    function_call: FunctionCall | None = None
    refusal: LongText | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> ChatMessage:
        if self.content is None and not (self.role == "assistant"):
            raise FieldError("content", f"a message of role {self.role} needs content")
        if self.role == "tool" and self.tool_call_id is None:
            raise FieldError("tool_call_id", "a message of role tool needs tool_call_id")
        if self.role == "function" and not self.name:
            raise FieldError("name", "a message of role function needs name")
        return self


class FunctionSpec(Wire):
    """A function offered as a tool; `parameters` is a JSON Schema."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: Annotated[str, Field(max_length=65536)] | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class ToolSpec(Wire):
    """A tool offered to the model."""

    type: Literal["function"]
    function: FunctionSpec


class StreamOptions(Wire):
    """How a stream is sent. Obfuscation is accepted and not done."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class JsonSchemaFormat(Wire):
    """A JSON Schema with a name. It is enforced whether `strict` asks for that or not."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[str, Field(max_length=65536)] | None = None
    schema_: Annotated[JsonObject | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Wire):
    """The form the answer must have; `schema` is llama-server's short way to name one."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    schema_: Annotated[JsonObject | None, Field(alias="schema")] = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise FieldError("json_schema", "type json_schema needs the field json_schema")
        if self.type != "json_schema" and self.json_schema is not None:
            raise FieldError("json_schema", f"type {self.type} has no json_schema")
        if self.type != "json_object" and self.schema_ is not None:
            raise FieldError("schema", f"type {self.type} has no schema of its own")
        return self


Schema = JsonObject | LongText
Choices = Annotated[Many[LongText], Field(min_length=1, max_length=4096)]


class StructuredOutputs(Wire):
    """vLLM's way to name what the answer must be: exactly one of the fields."""

    json_: Annotated[Schema | None, Field(alias="json")] = None
    regex: LongText | None = None
    choice: Choices | None = None
    grammar: LongText | None = None
    json_object: bool | None = None

    @model_validator(mode="after")
    def _is_one(self) -> StructuredOutputs:
        given = (self.json_, self.regex, self.choice, self.grammar, self.json_object or None)
        if sum(value is not None for value in given) > 1:
            raise ValueError("only one of json, regex, choice, grammar and json_object may be set")
        return self


class SamplingFields(Wire):
    """The sampling fields that chat and text completions share. None means: not given."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Probability | None = None
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    ignore_eos: bool | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    logit_bias: Annotated[dict[str, Bias] | None, _at_most(1024)] = None
    user: Annotated[str, Field(max_length=1024)] | None = None
    priority: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] | None = None
    # What the answer must be: OpenAI's way, vLLM's, llama-server's (GBNF), vLLM's former one.
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    grammar: LongText | None = None
    guided_json: Schema | None = None
    guided_regex: LongText | None = None
    guided_choice: Choices | None = None
    guided_grammar: LongText | None = None

    @field_validator("logit_bias")
    @classmethod
    def _keys_are_token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value and not all(k.isascii() and k.isdigit() and len(k) < 10 for k in value):
            raise ValueError("keys must be token ids")
        return value

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> SamplingFields:
        if self.stream_options is not None and not self.stream:
            raise FieldError("stream_options", "stream_options is only allowed when stream is true")
        return self

    @model_validator(mode="after")
    def _one_constraint(self) -> SamplingFields:
        names = (
            "response_format",
            "structured_outputs",
            "grammar",
            "guided_json",
            "guided_regex",
            "guided_choice",
            "guided_grammar",
        )
        given = [name for name in names if getattr(self, name) is not None]
        if self.response_format is not None and self.response_format.type == "text":
            given.remove("response_format")
        if len(given) > 1:
            raise FieldError(given[1], f"{given[0]} and {given[1]} cannot both be set")
        return self


class ChatCompletionRequest(SamplingFields):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[Many[ChatMessage], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[ToolSpec], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | JsonObject | None = None
    parallel_tool_calls: bool | None = None
    # Asking for no different output, these are accepted and have no effect.
    store: bool | None = None
    metadata: Annotated[dict[str, str] | None, _at_most(16)] = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: JsonObject | None = None

    @field_validator("metadata")
    @classmethod
    def _metadata_is_small(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value and any(len(k) > 64 or len(v) > 512 for k, v in value.items()):
            raise ValueError("keys may have 64 characters, values 512")
        return value

    @model_validator(mode="after")
    def _fields_agree(self) -> ChatCompletionRequest:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise FieldError(
                "max_tokens", "max_tokens and max_completion_tokens cannot both be set"
            )
        if self.top_logprobs and not self.logprobs:
            raise FieldError("top_logprobs", "top_logprobs needs logprobs to be true")
        return self


TokenIds = Annotated[Many[TokenId], Field(min_length=1, max_length=2**20)]


def _form_of(prompt: object) -> str:
    """Tell which of its four forms a prompt has, so that only that one is tried."""
    if not isinstance(prompt, list):
        return "one text"
    first = prompt[0] if prompt else ""
    return {int: "one list of ids", list: "lists of ids"}.get(type(first), "texts")


class CompletionRequest(SamplingFields):
    """The body of POST /v1/completions. `prompt` is text or token ids, one or several."""

    prompt: Annotated[
        Annotated[LongText, Tag("one text")]
        | Annotated[TokenIds, Tag("one list of ids")]
        | Annotated[Many[LongText], Field(min_length=1, max_length=64), Tag("texts")]
        | Annotated[Many[TokenIds], Field(min_length=1, max_length=64), Tag("lists of ids")],
        Discriminator(_form_of),
    ]
    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Field(ge=1, le=8)] | None = None

    @model_validator(mode="after")
    def _nothing_to_generate_needs_echo(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise FieldError("max_tokens", "max_tokens may be 0 only with echo")
        return self


InputText = Annotated[str, Field(min_length=1, max_length=4 * 2**20)]


class EmbeddingsRequest(Wire):
    """The body of POST /v1/embeddings. `input` is text or token ids, one or several."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: Annotated[
        Annotated[InputText, Tag("one text")]
        | Annotated[TokenIds, Tag("one list of ids")]
        | Annotated[Many[InputText], Field(min_length=1, max_length=2048), Tag("texts")]
        | Annotated[Many[TokenIds], Field(min_length=1, max_length=2048), Tag("lists of ids")],
        Discriminator(_form_of),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=2**20)] | None = None
    user: Annotated[str, Field(max_length=1024)] | None = None


def json_schemas() -> dict[str, Any]:
    """Return the JSON Schemas of the bodies and what they refer to, by name, for OpenAPI."""
    bodies: list[tuple[type[BaseModel], Literal["validation"]]] = [
        (ChatCompletionRequest, "validation"),
        (CompletionRequest, "validation"),
        (EmbeddingsRequest, "validation"),
    ]
    _, schemas = models_json_schema(bodies, ref_template=SCHEMA_REF)
    definitions: dict[str, Any] = schemas["$defs"]
    return definitions


SCHEMA_REF = "#/components/schemas/{model}"
"""Where OpenAPI keeps schemas."""


def _descendants(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _descendants(model)


FIELD_NAMES = frozenset(
    field.alias or name
    for model in _descendants(Wire)
    for name, field in model.model_fields.items()
)
"""Every field name of the wire: what an error may name. Other keys are the client's own words."""
