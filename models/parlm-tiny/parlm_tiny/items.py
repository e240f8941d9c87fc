"""What the generators make: messages, questions with their answers, conversations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

Tool = dict[str, Any]
"""One tool's ``function`` object: name, description, parameters (a JSON schema)."""


@dataclass(frozen=True)
class Message:
    """One turn; ``role`` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True)
class Item:
    """A question and its computed answer: the last message is the assistant's right answer.

    ``facts`` holds what scoring needs beyond the text (for SQL the tables).
    """

    skill: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def answer(self) -> str:
        """The text that a right reply should be."""
        return self.messages[-1].content

    def key(self) -> str:
        """The item's whole visible text; equal keys mean the same item."""
        turns = [[message.role, message.content] for message in self.messages]
        return json.dumps([self.skill, turns, list(self.tools)], ensure_ascii=False)


@dataclass(frozen=True)
class Conversation:
    """What one training sequence or one prompt is rendered from."""

    messages: tuple[Message, ...]
    system: str = ""
    tools: tuple[Tool, ...] = ()


Generator = Callable[[Random], Item]

HELD_OUT_ONE_IN = 24
"""One in so many distinct items belongs to the held-out side, by the hash of its text."""


def is_held_out(item: Item) -> bool:
    """Which side an item belongs to: fixed by its text, so never on both."""
    digest = hashlib.sha256(item.key().encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


def draw(generate: Generator, rng: Random, held_out: bool) -> Item:
    """The generator's next item of the wanted side."""
    while True:
        item = generate(rng)
        if is_held_out(item) == held_out:
            return item


def ask(skill: str, question: str, answer: str, **facts: Any) -> Item:
    """An item of one user turn and one answer."""
    return Item(skill, (Message("user", question), Message("assistant", answer)), facts=facts)


def vary(rng: Random, text: str, case: bool = True) -> str:
    """Write a question as people do: at times without its mark, in lower or upper case."""
    if rng.random() < 0.2:
        text = text.rstrip("?.!")
    draw_case = rng.random()
    if case and draw_case < 0.12:
        return text.lower()
    if case and draw_case < 0.15:
        return text.upper()
    return text
