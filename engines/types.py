"""The types that travel between the layers: requests down, events up.

The lowest layer owns them, so that `adapters` and `server` may use them and no dictionary
crosses a border. All are frozen: what was validated stays valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that an assistant message made. `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat, its content flattened to text.

    `tool_call_id` names the call that a `tool` message answers.
    """

    role: Role
    content: str = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call. `parameters` is a JSON Schema, as text."""

    name: str
    description: str = ""
    parameters: str = "{}"


@dataclass(frozen=True, slots=True)
class Text:
    """Literal text of a prompt: tokenised with the parsing of special tokens switched off."""

    text: str


@dataclass(frozen=True, slots=True)
class Special:
    """One special token of the vocabulary by its name (`</s>`): becomes exactly that id."""

    token: str


@dataclass(frozen=True, slots=True)
class PartsPrompt:
    """A rendered prompt: literal text and special tokens in order.

    Nothing in a `Text` can become a control token, whatever a user wrote. An engine joins
    neighbouring texts before it tokenises them, as the family's own template would.

    `add_bos` asks for the tokenizer's usual BOS in front (nothing for a tokenizer that has
    none); False when the template wrote it. `stop` and `stop_tokens` (names of special tokens)
    end an answer of this template, besides the end-of-generation tokens of the model.
    """

    parts: tuple[Text | Special, ...]
    add_bos: bool = True
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The parts joined: what the family's own template prints."""
        return "".join(p.text if isinstance(p, Text) else p.token for p in self.parts)


@dataclass(frozen=True, slots=True)
class TokensPrompt:
    """Token ids as a client of /v1/completions sent them; nothing is added."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MessagesPrompt:
    """Messages left as they came, for an engine that templates them itself (the proxy)."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()


Prompt = PartsPrompt | TokensPrompt | MessagesPrompt


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is one JSON value that validates against a schema (JSON text).

    `param`, here and in the other constraints, is the wire name of the field that asked for it:
    what an engine names when it cannot honour or compile it.
    """

    schema: str
    param: str = "response_format.json_schema.schema"


@dataclass(frozen=True, slots=True)
class JsonObject:
    """The answer is a JSON object, of whatever members."""

    param: str = "response_format"


@dataclass(frozen=True, slots=True)
class Grammar:
    """The answer is a sentence of a grammar in GBNF, the notation of llama.cpp."""

    gbnf: str
    param: str = "grammar"


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches a regular expression; there are no look-arounds in it."""

    pattern: str
    param: str = "structured_outputs.regex"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The answer is one of these texts."""

    choices: tuple[str, ...]
    param: str = "structured_outputs.choice"


Constraint = JsonSchema | JsonObject | Grammar | Regex | OneOf


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen and when an answer ends.

    `temperature` 0 is greedy. `top_k` 0, `top_p` 1, `min_p` 0 and `typical_p` 1 are off.
    Penalties are additive as OpenAI defines them; `repetition_penalty` is multiplicative (1 is
    off). `max_tokens` None means up to the end of the context. `logprobs` None asks for none, 0
    for those of the chosen tokens, k for the k likeliest beside each. `logit_bias` holds pairs
    of token id and bias. `stop` strings are not part of the answer. With a `seed`, choice i of
    `n` uses seed + i. Under a `constraint` the model can end an answer exactly where the
    constraint is satisfied, and the answer ends with reason "stop" where nothing may follow.
    `echo` shows the prompt in front of each answer, with its logprobs if `logprobs` are asked
    for; `max_tokens` may then be 0.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    n: int = 1
    echo: bool = False
    typical_p: float = 1.0
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request to an engine. `extra` holds fields only some engines can honour, by wire name.

    Of those that wait, a lower `priority` is served first, as in vLLM. An engine that cannot
    honour a parameter or an extra raises `UnsupportedParameter`.
    """

    request_id: str
    prompt: Prompt
    sampling: SamplingParams = SamplingParams()
    extra: Mapping[str, object] = field(default_factory=dict)
    priority: int = 0


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Prompts to be turned into vectors. `dimensions` is the length wanted; None: the model's."""

    request_id: str
    prompts: tuple[Prompt, ...]
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of a request, in the order of its prompts, and the tokens of all of them.

    A vector is the bytes of its numbers (float32, little-endian); its Euclidean norm is 1.
    """

    vectors: tuple[bytes, ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """One of the likeliest tokens at a position. `bytes` is its exact UTF-8 (maybe a fragment)."""

    token: str
    logprob: float
    bytes: bytes


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The chosen token's natural-log probability before sampling, and the likeliest beside it.

    `logprob` is None for the first token of an echoed prompt only: nothing precedes it.
    """

    token: str
    logprob: float | None
    bytes: bytes
    top: tuple[TopLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text of choice `index`: never the text so far, never half a character."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """New text of a choice's reasoning, which an adapter's parser found in the text."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A fragment of call number `call` of a choice: `id` and `name` come in its first only."""

    index: int
    call: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of choice `index`; exactly one for each choice."""

    index: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of the whole request, once, last. The prompt counts once whatever `n` is."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


Event = TextDelta | ReasoningDelta | ToolCallDelta | Finish | Usage


@dataclass(frozen=True, slots=True)
class Health:
    """Whether an engine would take a request now, and a sentence why not."""

    is_ready: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a model's own files say of it, read without loading the weights.

    `path` is the file (GGUF, GGML) or folder (safetensors); empty for a model that has no files.
    `vocab_size` is the number of token ids; 0 when the files do not tell.
    `special_tokens` are the names of the control tokens. `context_length` is in tokens; 0 when
    the files do not tell. `parameters` counts the numbers of the weights; 0 when their format
    packs several into one. `variant` tells architectures apart that share a name: "v1" for the
    first ChatGLM. `has_remote_code` says that the folder names Python code of its own
    (`auto_map` in its config), which nothing runs unasked.
    """

    name: str
    path: str = ""
    format: Literal["gguf", "ggml", "safetensors", "none"] = "none"
    architecture: str = ""
    vocab_size: int = 0
    context_length: int = 0
    chat_template: str | None = None
    bos_token: str | None = None
    eos_token: str | None = None
    special_tokens: tuple[str, ...] = ()
    size_bytes: int = 0
    parameters: int = 0
    variant: str = ""
    has_remote_code: bool = False
