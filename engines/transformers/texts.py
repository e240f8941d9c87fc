"""Prompts as the text, and the messages, that a generate function of DB-GPT's kind takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from engines.errors import InvalidRequest
from engines.types import Message, MessagesPrompt, PartsPrompt, Prompt, TokensPrompt

# Between the turns of a chat, and the functions' stop string (DB-GPT v0.3.2,
# `pilot/conversation.py` and `pilot/scene/base_chat.py`).
SEPARATOR = "###"
_ROLES = {"user": "human", "assistant": "ai"}


def prompt_text(prompt: Prompt, tokenizer: Any) -> str:
    """Return the text of a prompt. Raises `InvalidRequest` for one of no text.

    A BOS that the template wrote is left out if the tokenizer, which the function calls itself,
    adds one anyway. Messages that no template has rendered become `role:content` turns.
    """
    match prompt:
        case PartsPrompt():
            text = prompt.text.removeprefix(_own_bos(tokenizer))
        case TokensPrompt(ids):
            if tokenizer is None:
                raise InvalidRequest("this model's adapter takes text, not token ids", "prompt")
            text = str(tokenizer.decode(list(ids)))
        case MessagesPrompt(messages):
            turns = [f"{turn['role']}:{turn['content']}" for turn in plain_messages(messages)]
            text = SEPARATOR.join([*turns, "ai:"])
        case _:
            assert_never(prompt)
    if not text:
        raise InvalidRequest("the prompt is empty", param="prompt")
    return text


def plain_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return messages as DB-GPT v0.3.4 sent them: roles are system, human and ai."""
    return [{"role": _ROLES.get(m.role, m.role), "content": m.content} for m in messages]


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text as the function's tokenizer makes them; raises if it makes none."""
    if not hasattr(tokenizer, "encode"):
        raise InvalidRequest("this model's adapter brings no tokenizer", "prompt")
    return [int(token) for token in tokenizer.encode(text)]


def count_tokens(tokenizer: Any, text: str) -> int:
    """Return how many tokens a text is; without a tokenizer an estimate of 4 characters each."""
    if hasattr(tokenizer, "encode"):
        return len(tokenizer.encode(text)) if text else 0
    return -(-len(text) // 4)


def _own_bos(tokenizer: Any) -> str:
    """Return the BOS that a tokenizer puts in front of every text; empty for none."""
    bos = getattr(tokenizer, "bos_token_id", None)
    is_added = bos is not None and tokenizer.encode("a")[:1] == [bos]
    return str(tokenizer.bos_token) if is_added else ""
