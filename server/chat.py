"""A chat answer in the making: events in, OpenAI chunks or one whole completion out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import assert_never

from msgspec import UNSET

from engines.errors import EngineError
from engines.types import (
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from server.models import ServedModel
from server.replies import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChunkChoice,
    CompletionDetails,
    Delta,
    FunctionBody,
    LogprobBody,
    PromptDetails,
    ToolCallBody,
    ToolCallFragment,
    TopLogprobBody,
    UsageBody,
    encode,
)


def usage_body(usage: Usage) -> UsageBody:
    """Return the wire form of token counts."""
    return UsageBody(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.prompt_tokens + usage.completion_tokens,
        PromptDetails(usage.cached_tokens),
        CompletionDetails(usage.reasoning_tokens),
    )


def logprob_bodies(logprobs: tuple[TokenLogprob, ...]) -> list[LogprobBody]:
    """Return the wire form of token log probabilities."""
    return [
        LogprobBody(
            token.token,
            _known(token),
            list(token.bytes),
            [TopLogprobBody(top.token, top.logprob, list(top.bytes)) for top in token.top],
        )
        for token in logprobs
    ]


def _known(token: TokenLogprob) -> float:
    """Return the logprob of a generated token: only an echoed prompt begins with one without."""
    if token.logprob is None:
        raise EngineError("a generated token has no logprob")
    return token.logprob


class ChatChunks:
    """Turns the events of one answer into chunk payloads (JSON bytes)."""

    def __init__(self, answer_id: str, model: ServedModel, *, include_usage: bool) -> None:
        self.id = answer_id
        self.created = int(time.time())
        self.model = model
        self.include_usage = include_usage
        self._begun: set[int] = set()

    def feed(self, event: Event) -> list[bytes]:
        """Return the chunks an event makes; the first of a choice is preceded by its role."""
        match event:
            case TextDelta():
                return self._delta(event.index, Delta(content=event.text), event.logprobs)
            case ReasoningDelta():
                return self._delta(event.index, Delta(reasoning_content=event.text))
            case ToolCallDelta():
                return self._delta(event.index, Delta(tool_calls=[_fragment(event)]))
            case Finish():
                return self._delta(event.index, Delta(), finish_reason=event.reason)
            case Usage():
                usage = usage_body(event)
                return [self._chunk([], usage)] if self.include_usage else []
            case _:
                assert_never(event)

    def _delta(
        self,
        index: int,
        delta: Delta,
        logprobs: tuple[TokenLogprob, ...] = (),
        finish_reason: FinishReason | None = None,
    ) -> list[bytes]:
        chunks = []
        if index not in self._begun:
            self._begun.add(index)
            first = Delta(role="assistant", content="", refusal=None)
            chunks.append(self._chunk([ChunkChoice(index, first)]))
        body = ChatLogprobs(logprob_bodies(logprobs)) if logprobs else None
        chunks.append(self._chunk([ChunkChoice(index, delta, body, finish_reason)]))
        return chunks

    def _chunk(self, choices: list[ChunkChoice], usage: UsageBody | None = None) -> bytes:
        chunk = ChatChunk(
            self.id,
            self.created,
            self.model.name,
            choices,
            self.model.fingerprint,
            usage if self.include_usage else UNSET,
        )
        return encode(chunk)


def _fragment(event: ToolCallDelta) -> ToolCallFragment:
    is_first = event.id is not None
    return ToolCallFragment(
        event.call,
        FunctionBody(event.arguments, event.name if event.name is not None else UNSET),
        event.id if event.id is not None else UNSET,
        "function" if is_first else UNSET,
    )


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Choice:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    logprobs: list[LogprobBody] = field(default_factory=list)
    finish_reason: FinishReason = "stop"


class ChatFold:
    """Folds the same events into one whole completion."""

    def __init__(self, answer_id: str, model: ServedModel, *, logprobs: bool) -> None:
        self.id = answer_id
        self.created = int(time.time())
        self.model = model
        self.wants_logprobs = logprobs
        self._choices: dict[int, _Choice] = {}
        self._usage = Usage(0, 0)

    def feed(self, event: Event) -> None:
        """Take one event in."""
        if isinstance(event, Usage):
            self._usage = event
            return
        choice = self._choices.setdefault(event.index, _Choice())
        match event:
            case TextDelta():
                choice.text.append(event.text)
                choice.logprobs.extend(logprob_bodies(event.logprobs))
            case ReasoningDelta():
                choice.reasoning.append(event.text)
            case ToolCallDelta():
                call = choice.calls.setdefault(event.call, _Call())
                call.id += event.id or ""
                call.name += event.name or ""
                call.arguments.append(event.arguments)
            case Finish():
                choice.finish_reason = event.reason
            case _:
                assert_never(event)

    def body(self) -> bytes:
        """Return the completion as JSON, once all events are in."""
        choices = [self._choice(i, c) for i, c in sorted(self._choices.items())]
        return encode(
            ChatCompletion(
                self.id,
                self.created,
                self.model.name,
                choices,
                usage_body(self._usage),
                self.model.fingerprint,
            )
        )

    def _choice(self, index: int, choice: _Choice) -> ChatChoice:
        calls = [
            ToolCallBody(call.id, FunctionBody("".join(call.arguments), call.name))
            for _, call in sorted(choice.calls.items())
        ]
        text = "".join(choice.text)
        message = AssistantMessage(
            content=None if calls and not text else text,
            reasoning_content="".join(choice.reasoning) or UNSET,
            tool_calls=calls or UNSET,
        )
        logprobs = ChatLogprobs(choice.logprobs) if self.wants_logprobs else None
        return ChatChoice(index, message, choice.finish_reason, logprobs)
