"""parlm-tiny, the model that comes with the project (models/parlm-tiny)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from adapters.base import BaseChatAdapter
from adapters.parsing import OutputParser, PlainText
from adapters.prompts import chatml, split_system
from adapters.registry import chat_adapters
from adapters.tagged import TaggedToolCalls
from adapters.templates import as_object
from engines.types import Message, PartsPrompt, Tool, ToolCall


@chat_adapters.register
class ParlmTinyChatAdapter(BaseChatAdapter):
    """ChatML without BOS; tools are listed in the system turn, calls are JSON between tags.

    The same as the model's own Jinja template prints, which a test holds it to.
    """

    name = "parlm-tiny"
    priority = -10
    # So small a model rarely finds its way back from an unlikely token.
    sampling_defaults: Mapping[str, float] = {"temperature": 0.0}

    def match(self, model_path: str) -> bool:
        """Match the name, or a file or folder of that name."""
        return PurePath(model_path).name.lower().startswith("parlm-tiny")

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write ChatML; the system turn is there only if it has something to say."""
        system, rest = split_system(messages)
        listed = "\n".join(["Tools:", *map(_tool_line, tools)]) if tools else ""
        instructions = "\n\n".join(text for text in (system, listed) if text)
        written = [Message(m.role, _content(m)) for m in rest]
        if instructions:
            written.insert(0, Message("system", instructions))
        return chatml(written, add_bos=False)

    def output_parser(self, tools: Sequence[Tool] = ()) -> OutputParser:
        """Find tool calls, if there are tools to call."""
        return TaggedToolCalls() if tools else PlainText()


def _tool_line(tool: Tool) -> str:
    fields = {
        "name": tool.name,
        "description": tool.description,
        "parameters": as_object(tool.parameters),
    }
    return json.dumps(fields, ensure_ascii=False)


def _content(message: Message) -> str:
    blocks = [_call_block(call) for call in message.tool_calls]
    return "\n".join(([message.content] if message.content else []) + blocks)


def _call_block(call: ToolCall) -> str:
    arguments = as_object(call.arguments)
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    name = json.dumps(call.name, ensure_ascii=False)
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
