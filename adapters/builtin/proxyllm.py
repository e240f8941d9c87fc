"""What runs behind an API of its own: messages go there as they came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from adapters.builtin.family import FamilyChatAdapter, FamilyLLMAdapter
from adapters.parsing import OutputParser, PlainText
from adapters.registry import chat_adapters, llm_adapters
from engines.types import Message, MessagesPrompt, Tool

# DB-GPT had `bard_proxyllm` and its like later.
NAMES = re.compile(r"(?:^|-)proxyllm$")


@llm_adapters.register
class ProxyllmLLMAdapter(FamilyLLMAdapter):
    """There are no weights."""

    name = "proxyllm"
    names = NAMES
    engine = "proxy"

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:  # noqa: ARG002
        """Return the name in the model's place, as DB-GPT's ProxyllmAdapter did."""
        return "proxyllm", None


@chat_adapters.register
class ProxyllmChatAdapter(FamilyChatAdapter):
    """Leaves messages and tools to the service that answers."""

    name = "proxyllm"
    names = NAMES

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> MessagesPrompt:
        """Pass the chat on."""
        return MessagesPrompt(tuple(messages), tuple(tools))

    def output_parser(self, tools: Sequence[Tool] = ()) -> OutputParser:  # noqa: ARG002
        """Pass the text on."""
        return PlainText()
