"""Conversations of FastChat's kind: objects that collect turns and print a prompt.

DB-GPT's adapters may return one from `get_conv_template()`. Needed of it are `roles`, `copy()`,
`append_message()`, `get_prompt()`, `stop_str`, and `update_system_message()` or, as FastChat
has it, `set_system_message()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

OLD_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "human",
    "assistant": "ai",
}
"""OpenAI's roles -> those of DB-GPT's payload."""


def filled(conversation: Any, messages: Iterable[Any]) -> Any:
    """Return the conversation with the messages of a payload in it, ready for the answer.

    Messages have `role` and `content`, as keys or attributes. As in DB-GPT v0.3.2 the text of
    several system messages is joined without anything between. Raises `ValueError` for a role
    other than `system`, `human` and `ai`.
    """
    user, assistant = conversation.roles[:2]
    system = []
    for message in messages:
        role, content = _read(message, "role"), _read(message, "content")
        if role == "system":
            system.append(content)
        elif role in ("human", "ai"):
            conversation.append_message(user if role == "human" else assistant, content)
        else:
            raise ValueError(f"unknown role {role!r}; DB-GPT's are system, human and ai")
    if system:
        name = "update_system_message"
        if not hasattr(conversation, name):
            name = "set_system_message"
        getattr(conversation, name)("".join(system))
    conversation.append_message(assistant, None)
    return conversation


def _read(message: Any, name: str) -> Any:
    return message[name] if isinstance(message, Mapping) else getattr(message, name)
