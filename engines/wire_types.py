"""The domain types as they travel on the wire: tagged structs, each with its way there and back.

The frozen dataclasses of `engines.types` stay free of serialisation. Types that hold no union
(`Finish`, `Usage`, …) msgspec reads and writes as they are; a wrapper adds the tag.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from engines import errors
from engines.core import StepOutput
from engines.types import (
    Event,
    Finish,
    GenerationRequest,
    MessagesPrompt,
    PartsPrompt,
    Prompt,
    ReasoningDelta,
    Special,
    Text,
    TextDelta,
    TokenLogprob,
    TokensPrompt,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from engines.wire_sampling import WireSampling, pack_sampling, unpack_sampling


class _Struct(msgspec.Struct, frozen=True, array_like=True):
    """An array on the wire: its fields in order, after the tag if it has one."""


class WireText(_Struct, frozen=True, tag="text"):
    """A `Text` part of a prompt."""

    value: str


class WireSpecial(_Struct, frozen=True, tag="special"):
    """A `Special` part of a prompt."""

    value: str


class WireParts(_Struct, frozen=True, tag="parts"):
    """A `PartsPrompt`."""

    parts: tuple[WireText | WireSpecial, ...]
    add_bos: bool
    stop: tuple[str, ...]
    stop_tokens: tuple[str, ...]


class WireTokens(_Struct, frozen=True, tag="tokens"):
    """A `TokensPrompt`."""

    value: TokensPrompt


class WireMessages(_Struct, frozen=True, tag="messages"):
    """A `MessagesPrompt`."""

    value: MessagesPrompt


WirePrompt = WireParts | WireTokens | WireMessages


def pack_prompt(prompt: Prompt) -> WirePrompt:
    """Turn a prompt into its wire form."""
    match prompt:
        case PartsPrompt():
            parts = tuple(
                WireText(part.text) if isinstance(part, Text) else WireSpecial(part.token)
                for part in prompt.parts
            )
            return WireParts(parts, prompt.add_bos, prompt.stop, prompt.stop_tokens)
        case TokensPrompt():
            return WireTokens(prompt)
        case MessagesPrompt():
            return WireMessages(prompt)
        case _:
            assert_never(prompt)


def unpack_prompt(wire: WirePrompt) -> Prompt:
    """Turn the wire form back into the prompt."""
    if not isinstance(wire, WireParts):
        return wire.value
    parts = tuple(
        Text(part.value) if isinstance(part, WireText) else Special(part.value)
        for part in wire.parts
    )
    return PartsPrompt(parts, wire.add_bos, wire.stop, wire.stop_tokens)


class WireRequest(_Struct, frozen=True):
    """A `GenerationRequest`. `extra` holds JSON-like values only."""

    request_id: str
    prompt: WirePrompt
    sampling: WireSampling
    extra: dict[str, Any]
    priority: int = 0


def pack_request(request: GenerationRequest, request_id: str) -> WireRequest:
    """Turn a request into its wire form, under an id that is unique on this connection."""
    return WireRequest(
        request_id,
        pack_prompt(request.prompt),
        pack_sampling(request.sampling),
        dict(request.extra),
        request.priority,
    )


def unpack_request(wire: WireRequest) -> GenerationRequest:
    """Turn the wire form back into the request."""
    prompt, sampling = unpack_prompt(wire.prompt), unpack_sampling(wire.sampling)
    return GenerationRequest(wire.request_id, prompt, sampling, wire.extra, wire.priority)


class WireTopLogprob(_Struct, frozen=True):
    """A `TopLogprob`; its field `bytes`, under that name, would hide the type from msgspec."""

    token: str
    logprob: float
    data: bytes


class WireTokenLogprob(_Struct, frozen=True):
    """A `TokenLogprob`."""

    token: str
    logprob: float | None
    data: bytes
    top: tuple[WireTopLogprob, ...]


class WireTextDelta(_Struct, frozen=True, tag="delta"):
    """A `TextDelta`."""

    index: int
    text: str
    logprobs: tuple[WireTokenLogprob, ...]


class WireReasoning(_Struct, frozen=True, tag="reasoning"):
    """A `ReasoningDelta`."""

    value: ReasoningDelta


class WireToolCall(_Struct, frozen=True, tag="tool_call"):
    """A `ToolCallDelta`."""

    value: ToolCallDelta


class WireFinish(_Struct, frozen=True, tag="finish"):
    """A `Finish`."""

    value: Finish


class WireUsage(_Struct, frozen=True, tag="usage"):
    """A `Usage`."""

    value: Usage


WireEvent = WireTextDelta | WireReasoning | WireToolCall | WireFinish | WireUsage


def pack_event(event: Event) -> WireEvent:
    """Turn an event into its wire form."""
    match event:
        case TextDelta():
            logprobs = tuple(_pack_logprob(token) for token in event.logprobs)
            return WireTextDelta(event.index, event.text, logprobs)
        case Finish():
            return WireFinish(event)
        case Usage():
            return WireUsage(event)
        case ReasoningDelta():
            return WireReasoning(event)
        case ToolCallDelta():
            return WireToolCall(event)
        case _:
            assert_never(event)


def unpack_event(wire: WireEvent) -> Event:
    """Turn the wire form back into the event."""
    if not isinstance(wire, WireTextDelta):
        return wire.value
    logprobs = tuple(
        TokenLogprob(
            token.token,
            token.logprob,
            token.data,
            tuple(TopLogprob(top.token, top.logprob, top.data) for top in token.top),
        )
        for token in wire.logprobs
    )
    return TextDelta(wire.index, wire.text, logprobs)


def _pack_logprob(token: TokenLogprob) -> WireTokenLogprob:
    top = tuple(WireTopLogprob(top.token, top.logprob, top.bytes) for top in token.top)
    return WireTokenLogprob(token.token, token.logprob, token.bytes, top)


class WireOutput(_Struct, frozen=True):
    """A `StepOutput`."""

    request_id: str
    events: tuple[WireEvent, ...] = ()
    error: WireError | None = None


def pack_output(output: StepOutput) -> WireOutput:
    """Turn a step's output for one request into its wire form."""
    error = pack_error(output.error) if output.error is not None else None
    return WireOutput(output.request_id, tuple(map(pack_event, output.events)), error)


def unpack_output(wire: WireOutput) -> StepOutput:
    """Turn the wire form back into the output."""
    error = unpack_error(wire.error) if wire.error is not None else None
    return StepOutput(wire.request_id, tuple(map(unpack_event, wire.events)), error)


class WireError(_Struct, frozen=True):
    """An `EngineError`: the name of its class in `engines.errors`, message and attributes."""

    kind: str
    message: str
    attributes: dict[str, str | int | None]


_ERRORS = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.EngineError)
}
_ATTRIBUTES = frozenset(
    {"param", "limit", "prompt_tokens", "max_tokens", "retry_after", "status", "code"} | {"option"}
)


def pack_error(error: errors.EngineError) -> WireError:
    """Turn an error into its wire form; a class this wire does not know goes as its parent."""
    kind = next(base.__name__ for base in type(error).__mro__ if _ERRORS.get(base.__name__) is base)
    attributes = {
        name: value
        for name, value in vars(error).items()
        if name in _ATTRIBUTES and isinstance(value, str | int | None)
    }
    return WireError(kind, str(error), attributes)


def unpack_error(wire: WireError) -> errors.EngineError:
    """Build the error again as the same class, past its constructor; nothing else can be named."""
    cls = _ERRORS.get(wire.kind, errors.EngineError)
    error = cls.__new__(cls, wire.message)
    for name, value in wire.attributes.items():
        if name in _ATTRIBUTES:
            setattr(error, name, value)
    return error
