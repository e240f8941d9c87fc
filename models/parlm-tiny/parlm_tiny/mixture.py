"""The training mixture: which skills a conversation has, deterministic by seed and chunk."""

from __future__ import annotations

from random import Random

from parlm_tiny.items import Conversation, Generator, Item, Message, draw
from parlm_tiny.skills import (
    arithmetic,
    configuration,
    copying,
    extraction,
    greeting,
    memory,
    reading,
    sql,
    tools,
)

_FILLERS: list[Generator] = [
    greeting.generate,
    configuration.generate,
    arithmetic.generate,
    reading.generate_mixed,
]

DRILLS_FROM = 8
"""Chunk from which on the training has copying drills."""
REBALANCED_FROM = 24
"""Chunk from which on the mixture leans towards the skills that were weak by then."""
PLAIN_TOOLS_FROM = 31
"""Chunk from which on each tool has one name: the varied names asked too much of the model."""
VARIED_TOOLS = "varied tools"
"""Tool calling where tools and arguments have several names."""
READING_FROM = 36
"""Chunk from which on the mixture leans towards reading, the weakest skill by then."""
PLAIN_READING_FROM = 42
"""Chunk from which on each kind of fact comes once in a passage: mixed ones were too hard."""
TOOLS_FROM = 48
"""Chunk from which on the mixture leans towards tool calling, with fewer refusals."""
MIXED_READING = "mixed reading"
"""Reading where several people share a kind of fact."""
REFUSALS = "refusals"
"""The part of tool calling where no tool fits."""
ECHO = "echo"
"""The part of greeting that says a phrase back, as an entry of its own."""

SKILLS: dict[str, Generator] = {
    greeting.SKILL: greeting.generate,
    configuration.SKILL: configuration.generate,
    arithmetic.SKILL: arithmetic.generate,
    sql.SKILL: sql.generate,
    extraction.SKILL: extraction.generate,
    reading.SKILL: reading.generate,
    tools.SKILL: tools.generate,
    memory.SKILL: memory.make(_FILLERS),
}

WEIGHTS: dict[str, float] = {
    greeting.SKILL: 1.0,
    configuration.SKILL: 1.0,
    arithmetic.SKILL: 1.3,
    sql.SKILL: 1.3,
    extraction.SKILL: 1.1,
    MIXED_READING: 1.5,
    VARIED_TOOLS: 1.1,
    memory.SKILL: 0.8,
}
"""Share of each skill at the beginning."""

STAGES: tuple[tuple[int, dict[str, float]], ...] = (
    (0, WEIGHTS),
    (DRILLS_FROM, {**WEIGHTS, copying.SKILL: 3.0}),
    (
        REBALANCED_FROM,
        {
            greeting.SKILL: 1.0,
            ECHO: 0.8,
            configuration.SKILL: 0.7,
            arithmetic.SKILL: 2.6,
            sql.SKILL: 0.9,
            extraction.SKILL: 1.6,
            MIXED_READING: 1.3,
            VARIED_TOOLS: 2.2,
            memory.SKILL: 0.4,
            copying.SKILL: 0.5,
        },
    ),
    (
        PLAIN_TOOLS_FROM,
        {
            greeting.SKILL: 1.4,
            ECHO: 0.6,
            configuration.SKILL: 1.2,
            arithmetic.SKILL: 2.6,
            sql.SKILL: 0.9,
            extraction.SKILL: 1.4,
            MIXED_READING: 2.0,
            tools.SKILL: 1.6,
            memory.SKILL: 0.5,
            copying.SKILL: 0.5,
        },
    ),
    (
        READING_FROM,
        {
            greeting.SKILL: 1.2,
            ECHO: 0.6,
            configuration.SKILL: 0.8,
            arithmetic.SKILL: 2.0,
            sql.SKILL: 0.6,
            extraction.SKILL: 1.2,
            MIXED_READING: 4.0,
            tools.SKILL: 1.5,
            REFUSALS: 0.5,
            memory.SKILL: 0.4,
            copying.SKILL: 0.3,
        },
    ),
    (
        PLAIN_READING_FROM,
        {
            greeting.SKILL: 1.4,
            ECHO: 0.5,
            configuration.SKILL: 1.2,
            arithmetic.SKILL: 1.6,
            sql.SKILL: 1.0,
            extraction.SKILL: 1.2,
            reading.SKILL: 2.6,
            tools.SKILL: 1.6,
            REFUSALS: 0.5,
            memory.SKILL: 0.5,
            copying.SKILL: 0.2,
        },
    ),
    (
        TOOLS_FROM,
        {
            greeting.SKILL: 1.2,
            ECHO: 0.5,
            configuration.SKILL: 0.7,
            arithmetic.SKILL: 2.0,
            sql.SKILL: 0.7,
            extraction.SKILL: 0.8,
            reading.SKILL: 1.2,
            tools.SKILL: 3.0,
            memory.SKILL: 0.5,
        },
    ),
)
"""Weights from a chunk on, found by watching held-out accuracy while training."""

GENERATORS: dict[str, Generator] = {
    **SKILLS,
    copying.SKILL: copying.generate,
    ECHO: greeting.generate_echo,
    VARIED_TOOLS: tools.generate_varied,
    MIXED_READING: reading.generate_mixed,
    REFUSALS: tools.generate_refusal,
}
"""The skills and the drills that only the training has."""

SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are parlm-tiny.",
    "Answer the question.",
    "Be brief.",
    "You are a helpful AI assistant.",
    "You are a friendly assistant.",
    "You are an assistant.",
    "Help the user.",
    "Be kind and short.",
    "Answer in English.",
    "You write SQL and JSON.",
    "You are a useful model, built into parlm.",
)
SYSTEM_SHARE = 0.15
SECOND_TURN_SHARE = 0.3


def weights_of(chunk: int) -> dict[str, float]:
    """The weights that hold for a chunk."""
    return [weights for first, weights in STAGES if first <= max(chunk, 0)][-1]


def draw_skill(rng: Random, weights: dict[str, float]) -> str:
    """A skill by its weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def join(items: list[Item], system: str = "") -> Conversation:
    """One conversation of several items; only the first may bring tools."""
    messages: list[Message] = []
    for item in items:
        messages += item.messages
    return Conversation(tuple(messages), system, items[0].tools)


def draw_system(rng: Random) -> str:
    """A system text, mostly none."""
    return rng.choice(SYSTEM_TEXTS) if rng.random() < SYSTEM_SHARE else ""


def draw_conversation(rng: Random, weights: dict[str, float]) -> tuple[Conversation, list[Item]]:
    """A conversation of training items, mostly one, and the items it is made of."""
    skill = draw_skill(rng, weights)
    items = [draw(GENERATORS[skill], rng, held_out=False)]
    while rng.random() < SECOND_TURN_SHARE and len(items) < 4:
        other = draw_skill(rng, weights)
        if other not in (tools.SKILL, VARIED_TOOLS, REFUSALS, memory.SKILL):
            items.append(draw(GENERATORS[other], rng, held_out=False))
    return join(items, draw_system(rng)), items


def training_chunk(seed: int, chunk: int, size: int) -> list[tuple[Conversation, list[Item]]]:
    """``size`` conversations; the same seed and chunk always give the same ones."""
    rng = Random(f"train/{seed}/{chunk}")
    return [draw_conversation(rng, weights_of(chunk)) for _ in range(size)]


def held_out(seed: int, skill: str, count: int) -> list[Item]:
    """Distinct held-out items of one skill, or of another generator's name."""
    rng = Random(f"held out/{seed}/{skill}")
    found: dict[str, Item] = {}
    while len(found) < count:
        item = draw(GENERATORS[skill], rng, held_out=True)
        found[item.key()] = item
    return list(found.values())
