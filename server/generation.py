"""From wire requests to `GenerationRequest`s, and from an engine's events to parsed ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, assert_never

import anyio

from adapters.base import BaseChatAdapter
from adapters.parsing import OutputParser
from engines.errors import UnsupportedParameter
from engines.types import (
    Constraint,
    Event,
    Finish,
    GenerationRequest,
    Message,
    MessagesPrompt,
    PartsPrompt,
    Prompt,
    ReasoningDelta,
    SamplingParams,
    Text,
    TextDelta,
    TokensPrompt,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from server.constraints import constraint_of, unknown_options
from server.models import ServedModel
from server.protocol import (
    ChatCompletionRequest,
    ChatMessage,
    CompletionRequest,
    SamplingFields,
    ToolSpec,
)

CLEANUP_SECONDS = 5.0
LONG_CHAT = 32_768
"""Characters from which a chat is rendered in a thread, so that others are not held up."""

# Values that ask for what happens anyway: accepted, and not passed to the engine.
_NEUTRAL: Mapping[str, object] = {
    "modalities": ["text"],
    "verbosity": "medium",
    "parallel_tool_calls": True,
    "best_of": 1,
    "suffix": "",
}


async def chat_request(
    wire: ChatCompletionRequest, model: ServedModel, request_id: str
) -> GenerationRequest:
    """Render the chat for the model's family. Raises `UnsupportedChat`, `UnsupportedParameter`."""
    messages = tuple(_message(m) for m in wire.messages)
    tools = offered_tools(wire)
    if _length(messages, tools) > LONG_CHAT:
        prompt = await anyio.to_thread.run_sync(model.adapter.render, messages, tools)
    else:
        prompt = model.adapter.render(messages, tools)
    logprobs = (wire.top_logprobs or 0) if wire.logprobs else None
    max_tokens = wire.max_completion_tokens or wire.max_tokens
    sampling = _sampling(wire, model.adapter, prompt, logprobs, max_tokens)
    _check_tools(model, prompt, tools, sampling.constraint)
    return GenerationRequest(request_id, prompt, sampling, _chat_extra(wire), wire.priority or 0)


def text_requests(
    wire: CompletionRequest, model: ServedModel, request_id: str
) -> list[GenerationRequest]:
    """Make one request for each prompt of the body."""
    extra = _unknown(wire) | _asked({"suffix": wire.suffix})
    if wire.best_of is not None and wire.best_of != (wire.n or 1):
        extra["best_of"] = wire.best_of
    max_tokens = 16 if wire.max_tokens is None else wire.max_tokens  # OpenAI's default
    requests = []
    for i, prompt in enumerate(_prompts(wire)):
        params = _sampling(wire, model.adapter, prompt, wire.logprobs, max_tokens)
        requests.append(
            GenerationRequest(
                f"{request_id}-{i}" if i else request_id,
                prompt,
                replace(params, echo=bool(wire.echo)),
                extra,
                wire.priority or 0,
            )
        )
    return requests


def offered_tools(wire: ChatCompletionRequest) -> tuple[Tool, ...]:
    """Return the tools the model is to be told of."""
    if wire.tool_choice == "none":
        return ()
    return tuple(_tool(tool) for tool in wire.tools or ())


def _check_tools(
    model: ServedModel, prompt: Prompt, tools: Sequence[Tool], constraint: Constraint | None
) -> None:
    """Refuse tools with a constraint, unless the engine writes the prompt itself.

    Here a call of a tool is text like any other, in the family's own form, which the constraint
    would not let through: the tools would silently never be called.
    """
    if tools and constraint is not None and not isinstance(prompt, MessagesPrompt):
        raise UnsupportedParameter(
            constraint.param.partition(".")[0],
            model.engine.name,
            "together with tools; leave one of them out, or set tool_choice to none",
        )


def _length(messages: Sequence[Message], tools: Sequence[Tool]) -> int:
    """Count the characters a template has to write, about."""
    contents = sum(len(m.content) for m in messages)
    calls = sum(len(call.arguments) for m in messages for call in m.tool_calls)
    return contents + calls + sum(len(t.description) + len(t.parameters) for t in tools)


def _prompts(wire: CompletionRequest) -> list[Prompt]:
    prompt = wire.prompt
    if isinstance(prompt, str):
        return [PartsPrompt((Text(prompt),))]
    if isinstance(prompt[0], int):
        return [TokensPrompt(tuple(prompt))]
    return [
        PartsPrompt((Text(item),)) if isinstance(item, str) else TokensPrompt(tuple(item))
        for item in prompt
    ]


def _message(wire: ChatMessage) -> Message:
    content = wire.content
    if content is None:
        content = wire.refusal or ""
    elif not isinstance(content, str):
        content = "\n".join(part.text or part.refusal or "" for part in content)
    calls = tuple(
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in wire.tool_calls or ()
    )
    if wire.function_call is not None:
        name = wire.function_call.name
        calls += (ToolCall(_legacy_id(name), name, wire.function_call.arguments),)
    if wire.role == "function":
        return Message("tool", content, wire.name, (), _legacy_id(wire.name or ""))
    return Message(wire.role, content, wire.name, calls, wire.tool_call_id)


def _legacy_id(function: str) -> str:
    """Make the id that ties a `function_call` to its result: before tools, the name did."""
    return f"call_{function}"


def _tool(wire: ToolSpec) -> Tool:
    parameters = json.dumps(wire.function.parameters or {}, ensure_ascii=False)
    return Tool(wire.function.name, wire.function.description or "", parameters)


def _sampling(
    wire: SamplingFields,
    adapter: BaseChatAdapter,
    prompt: Prompt,
    logprobs: int | None,
    max_tokens: int | None,
) -> SamplingParams:
    given = {
        "temperature": wire.temperature,
        "top_p": wire.top_p,
        "top_k": None if wire.top_k is None else max(0, wire.top_k),  # -1 is vLLM's "off"
        "min_p": wire.min_p,
        "typical_p": wire.typical_p,
        "repetition_penalty": wire.repetition_penalty,
        "presence_penalty": wire.presence_penalty,
        "frequency_penalty": wire.frequency_penalty,
        "min_tokens": wire.min_tokens,
        "ignore_eos": wire.ignore_eos,
        "n": wire.n,
        "seed": wire.seed,
        "max_tokens": max_tokens,
    }
    values: dict[str, Any] = dict(adapter.sampling_defaults)
    values.update({name: value for name, value in given.items() if value is not None})
    stop = (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ())
    return SamplingParams(
        **values,
        logprobs=logprobs,
        stop=stop + (prompt.stop if isinstance(prompt, PartsPrompt) else ()),
        stop_token_ids=tuple(wire.stop_token_ids or ()),
        logit_bias=tuple((int(k), v) for k, v in (wire.logit_bias or {}).items()),
        constraint=constraint_of(wire),
    )


def _unknown(wire: SamplingFields) -> dict[str, object]:
    options = wire.stream_options.model_extra if wire.stream_options is not None else None
    nested = {f"stream_options.{name}": value for name, value in (options or {}).items()}
    return _asked((wire.model_extra or {}) | nested | unknown_options(wire))


def _asked(fields: Mapping[str, object]) -> dict[str, object]:
    """Drop what asks for nothing: null, or what is done anyway."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None and not (name in _NEUTRAL and _NEUTRAL[name] == value)
    }


def _chat_extra(wire: ChatCompletionRequest) -> dict[str, object]:
    """Collect what only some engines can honour; the others refuse it by name."""
    extra = _unknown(wire) | _asked({"parallel_tool_calls": wire.parallel_tool_calls})
    if wire.tool_choice is not None and wire.tool_choice not in ("auto", "none"):
        extra["tool_choice"] = wire.tool_choice
    for number, tool in enumerate(wire.tools or ()):
        if tool.function.strict:
            extra[f"tools[{number}].function.strict"] = True
    return extra


async def parse(
    events: AsyncIterator[Event], adapter: BaseChatAdapter, tools: Sequence[Tool]
) -> AsyncIterator[Event]:
    """Send each choice's text through the family's output parser."""
    parsers: dict[int, OutputParser] = {}

    def parser_of(index: int) -> OutputParser:
        if index not in parsers:
            parsers[index] = adapter.output_parser(tools)
        return parsers[index]

    async with closing(events):
        async for event in events:
            match event:
                case TextDelta():
                    for parsed in parser_of(event.index).feed(event):
                        yield parsed
                case Finish():
                    for parsed in parser_of(event.index).finish(event.index, event.reason):
                        yield parsed
                case Usage() | ReasoningDelta() | ToolCallDelta():
                    yield event
                case _:
                    assert_never(event)


@asynccontextmanager
async def closing(events: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Close an event stream on every exit, which aborts what it runs.

    Shielded: under anyio's level-triggered cancellation an unshielded `await` in a `finally`
    is cancelled again before it has done anything.
    """
    try:
        yield
    finally:
        aclose = getattr(events, "aclose", None)
        if aclose is not None:
            with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
                await aclose()
