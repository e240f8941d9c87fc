"""A model's own chat template, rendered so that what messages say stays text.

`ChatTemplate` compiles in this process: only for a template that `adapters.probe` has tried.
What bounds a rendering after that is the size of the request, a limit on the output, and that
the operator chose the model; a template made to behave at the probe and not later is not caught.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.errors import UnsupportedChat
from adapters.marks import Marker, strip_marks
from adapters.sandbox import ChatRefused, ChatTemplateEnvironment
from engines.types import Message, PartsPrompt, Special, Text, Tool

MAX_OUTPUT = 4 * 1024 * 1024
"""Characters at which a rendering is given up; a longer context than this serves allows more.

No less for a shorter one: that a prompt is too long is for the engine to say, in tokens.
"""

_CHARACTERS_PER_TOKEN = 8
_MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """A chat template and the special tokens of its vocabulary, as the model's files have them.

    `context_length` is in tokens, 0 if unknown.
    """

    text: str
    special_tokens: tuple[str, ...] = ()
    bos_token: str | None = None
    eos_token: str | None = None
    context_length: int = 0

    @property
    def max_output(self) -> int:
        """Characters at which a rendering is given up."""
        return max(MAX_OUTPUT, _CHARACTERS_PER_TOKEN * self.context_length)


class ChatTemplate:
    """A compiled chat template; its prompts stop at `stop_tokens`.

    Making one raises whatever Jinja does for a broken template.
    """

    def __init__(self, source: TemplateSource, stop_tokens: Iterable[str | None] = ()) -> None:
        self.source = source
        self.stop_tokens = tuple(dict.fromkeys(token for token in stop_tokens if token))
        self._template = ChatTemplateEnvironment().from_string(source.text)
        named = (*source.special_tokens, source.bos_token or "", source.eos_token or "")
        self._marker = Marker(named)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        add_generation_prompt: bool = True,
        content_parts: bool = False,
    ) -> PartsPrompt:
        """Render a chat; the parts joined are what transformers' `apply_chat_template` prints.

        `content_parts` hands contents over as lists of one text part, for templates that know
        no other form. Raises `UnsupportedChat` when the template refuses or fails: its own
        words then, or a constant message, never those of the chat.
        """
        try:
            text = self._print(
                messages=self._messages(messages, content_parts),
                tools=[self._tool(tool) for tool in tools] or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                bos_token=self.source.bos_token or "",
                eos_token=self.source.eos_token or "",
            )
        except ChatRefused as error:
            reason = strip_marks(str(error))[:_MAX_REASON]
            raise UnsupportedChat(f"this model's chat template refuses: {reason}") from error
        except UnsupportedChat:
            raise
        except Exception as error:
            # Foreign code: whatever it fails with, this chat is what it failed on.
            raise UnsupportedChat("this model's chat template cannot render this chat") from error
        parts = self._marker.split(text)
        return PartsPrompt(parts, self._adds_bos(parts), stop_tokens=self.stop_tokens)

    def _print(self, **variables: Any) -> str:
        pieces = []
        size = 0
        for piece in self._template.generate(**variables):
            size += len(piece)
            if size > self.source.max_output:
                raise UnsupportedChat(
                    f"the prompt has more than {self.source.max_output} characters, "
                    "more than this model can read"
                )
            pieces.append(piece)
        return "".join(pieces)

    def _adds_bos(self, parts: Sequence[Text | Special]) -> bool:
        """Leave BOS to the tokenizer unless the template sees to it."""
        bos = self.source.bos_token
        starts_with_it = bos is not None and parts[:1] == (Special(bos),)
        return not starts_with_it and "bos_token" not in self.source.text

    def _messages(self, chat: Sequence[Message], content_parts: bool) -> list[dict[str, Any]]:
        # Templates want the name beside a result, which OpenAI's messages leave out.
        called = {call.id: call.name for message in chat for call in message.tool_calls}
        return [
            self._message(m, m.name or called.get(m.tool_call_id or ""), content_parts)
            for m in chat
        ]

    def _message(self, message: Message, name: str | None, content_parts: bool) -> dict[str, Any]:
        """Make the dictionary that templates expect; keys without a value are left out."""
        content: Any = self._marker.mark(message.content)
        if content_parts:
            content = [{"type": "text", "text": content}]
        made: dict[str, Any] = {"role": self._role(message), "content": content}
        if name:
            made["name"] = self._marker.mark(name)
        if message.tool_call_id:
            made["tool_call_id"] = self._marker.mark(message.tool_call_id)
        if message.tool_calls:
            made["tool_calls"] = [
                {
                    "id": self._marker.mark(call.id),
                    "type": "function",
                    "function": {
                        "name": self._marker.mark(call.name),
                        "arguments": self._marker.mark(as_object(call.arguments)),
                    },
                }
                for call in message.tool_calls
            ]
        return made

    def _role(self, message: Message) -> str:
        """Templates older than OpenAI's `developer` know it as `system`."""
        if message.role == "developer" and "developer" not in self.source.text:
            return "system"
        return message.role

    def _tool(self, tool: Tool) -> dict[str, Any]:
        return {
            "type": "function",
            "function": {
                "name": self._marker.mark(tool.name),
                "description": self._marker.mark(tool.description),
                "parameters": self._marker.mark(as_object(tool.parameters), is_data=True),
            },
        }


def as_object(text: str) -> Any:
    """Parse the JSON of a call's arguments or a tool's parameters; text that is none stays text."""
    try:
        value = json.loads(text)
        # Half of a surrogate pair, written as an escape, could not be tokenised.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return text
    return value
