"""Greedy answers to items."""

from __future__ import annotations

from parlm_tiny.encoding import Encoder
from parlm_tiny.generation import generate
from parlm_tiny.items import Conversation, Item
from parlm_tiny.model import TinyLlama

TOGETHER = 50
"""Prompts that are answered in one batch."""


def prompt_of(item: Item) -> Conversation:
    """The item without its answer."""
    return Conversation(item.messages[:-1], "", item.tools)


def answers(model: TinyLlama, encoder: Encoder, items: list[Item]) -> list[tuple[str, bool]]:
    """Greedy answers as text, and whether each ended by itself; in the items' order."""
    prompts = [encoder.prompt(prompt_of(item)) for item in items]
    order = sorted(range(len(items)), key=lambda index: len(prompts[index]))
    made: dict[int, tuple[str, bool]] = {}
    for start in range(0, len(order), TOGETHER):
        some = order[start : start + TOGETHER]
        for index, (ids, ended) in zip(
            some, generate(model, [prompts[index] for index in some]), strict=True
        ):
            made[index] = (encoder.decode(ids), ended)
    return [made[index] for index in range(len(items))]
