"""Parsers for what a family writes between tags: reasoning and tool calls.

Each reads a text once, whatever pieces it comes in, and the result does not depend on them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from typing import Any

from adapters.parsing import HoldingParser, ParsedEvent
from adapters.scanning import TagSearch, Trim
from engines.types import FinishReason, ReasoningDelta, TextDelta, ToolCallDelta


class TaggedReasoning(HoldingParser):
    """Finds reasoning at the beginning of an answer: `<think>reasoning</think>answer`.

    Tags further on are text: an answer may speak of them. Whitespace around the reasoning is
    dropped. With `is_open` the prompt has already written the opening tag.
    """

    def __init__(
        self, open_tag: str = "<think>", close_tag: str = "</think>", *, is_open: bool = False
    ) -> None:
        super().__init__()
        self._open_tag = open_tag
        self._close = TagSearch(close_tag)
        self._is_open = is_open
        self._state = "start"
        self._space: list[str] = []
        self._head = ""
        self._thought = Trim(skips_leading=True)
        self._answer = Trim()

    def _scan(self, index: int, text: str) -> Iterable[ParsedEvent]:
        if self._state == "start":
            text = self._begin(text)
        if self._state == "thinking" and text:
            before, rest = self._close.feed(text)
            if thought := self._thought.feed(before):
                yield ReasoningDelta(index, thought)
            text = rest or ""
            if rest is not None:
                self._state = "answering"
                self._thought.flush()
                self._answer = Trim(skips_leading=True)
        if self._state == "answering":
            yield TextDelta(index, self._answer.feed(text))

    def _begin(self, text: str) -> str:
        """Look for the opening tag after whitespace; return the text that follows the decision."""
        head = self._head + text
        if not self._head:
            head = head.lstrip()
            self._space.append(text[: len(text) - len(head)])
        self._head = ""
        if head.startswith(self._open_tag):
            self._state = "thinking"
            return head[len(self._open_tag) :]
        if self._open_tag.startswith(head):
            self._head = head
            return ""
        self._state = "thinking" if self._is_open else "answering"
        return "".join(self._space) + head

    def _flush(self, index: int) -> Iterable[ParsedEvent]:
        if self._state == "start":
            unused = "".join(self._space) + self._head
            self._head = ""
            self._state = "thinking" if self._is_open else "answering"
            yield from self._scan(index, unused)
        if self._state == "thinking":
            if thought := self._thought.feed(self._close.held):
                yield ReasoningDelta(index, thought)
        else:
            yield TextDelta(index, self._answer.flush())

    def _undecided(self) -> int:
        if self._state == "start":
            return self._fed
        return len(self._close.held) + self._thought.held_size + self._answer.held_size

    def _is_answer(self) -> bool:
        return self._state == "answering"


class TaggedToolCalls(HoldingParser):
    """Finds tool calls written as JSON: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

    A call is told of when it is whole, because what is no valid call stays in the answer as
    text. Whitespace beside a call is dropped. A last call needs no closing tag.
    """

    def __init__(self, open_tag: str = "<tool_call>", close_tag: str = "</tool_call>") -> None:
        super().__init__()
        self._tags = (open_tag, close_tag)
        self._search = TagSearch(open_tag)
        self._text = Trim()
        self._body: list[str] | None = None
        self._body_size = 0
        self._calls = 0

    def _scan(self, index: int, text: str) -> Iterable[ParsedEvent]:
        rest: str | None = text
        while rest is not None:
            before, rest = self._search.feed(rest)
            if self._body is None:
                yield TextDelta(index, self._text.feed(before))
                if rest is not None:
                    self._body = []
                    self._search = TagSearch(self._tags[1])
                continue
            self._body.append(before)
            self._body_size += len(before)
            if rest is not None:
                yield from self._end_call(index, self._tags[1])

    def _end_call(self, index: int, close_tag: str) -> Iterable[ParsedEvent]:
        body = "".join(self._body or ())
        self._body, self._body_size = None, 0
        self._search = TagSearch(self._tags[0])
        call = _parse_call(body)
        if call is None:
            yield TextDelta(index, self._text.feed(self._tags[0] + body + close_tag))
            return
        name, arguments = call
        self._text = Trim(skips_leading=True)
        yield ToolCallDelta(index, self._calls, "", f"call_{secrets.token_hex(12)}", name)
        yield ToolCallDelta(index, self._calls, arguments)
        self._calls += 1

    def _flush(self, index: int) -> Iterable[ParsedEvent]:
        held, self._search.held = self._search.held, ""
        if self._body is None:
            yield TextDelta(index, self._text.feed(held))
        else:
            self._body.append(held)
            yield from self._end_call(index, "")
        yield TextDelta(index, self._text.flush())

    def _undecided(self) -> int:
        opened = 0 if self._body is None else len(self._tags[0]) + self._body_size
        return opened + len(self._search.held) + self._text.held_size

    def _is_answer(self) -> bool:
        return self._body is None

    def _final_reason(self, reason: FinishReason) -> FinishReason:
        return "tool_calls" if self._calls and reason == "stop" else reason


def _parse_call(body: str) -> tuple[str, str] | None:
    """Return a call's name and its arguments as JSON text; None for what is no valid call.

    Arguments may be called `parameters`, as Llama 3 does, or be JSON inside a string.
    """
    try:
        call: Any = json.loads(body, parse_constant=_refuse_constant)
        name = call["name"]
        arguments = call.get("arguments", call.get("parameters")) or {}
        if isinstance(arguments, str):
            arguments = json.loads(arguments, parse_constant=_refuse_constant)
        text = json.dumps(arguments, ensure_ascii=False)
        (name + text).encode()  # refuses half of a surrogate pair, which no reply could carry
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return (name, text) if name and isinstance(arguments, dict) else None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
