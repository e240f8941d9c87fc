"""Memory across turns: something told early in a conversation and asked for later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from parlm_tiny import words
from parlm_tiny.items import Generator, Item, Message, is_held_out

SKILL = "memory"


@dataclass(frozen=True)
class Secret:
    """One kind of thing to remember: how it is told, acknowledged, asked for and recalled."""

    tell: tuple[str, ...]
    noted: str
    ask: tuple[str, ...]
    recall: str
    value: Callable[[Random], str]


def one_of(values: list[str]) -> Callable[[Random], str]:
    """A draw from a list."""
    return lambda rng: rng.choice(values)


SECRETS = (
    Secret(
        (
            "My name is {v}.",
            "Hi, my name is {v}.",
            "Hello, I am {v}.",
            "Hi! I'm {v}.",
            "Call me {v}.",
        ),
        "Nice to meet you, {v}!",
        (
            "What is my name?",
            "What's my name?",
            "Do you remember my name?",
            "Who am I?",
            "Tell me my name.",
        ),
        "Your name is {v}.",
        one_of(words.NAMES),
    ),
    Secret(
        (
            "Remember the number {v}.",
            "The number is {v}.",
            "Please remember this number: {v}.",
            "My secret number is {v}.",
        ),
        "I will remember the number {v}.",
        (
            "What was the number?",
            "What number did I tell you?",
            "Which number did I give you?",
            "What is my number?",
        ),
        "The number is {v}.",
        lambda rng: str(rng.randrange(10, 1000)),
    ),
    Secret(
        ("I live in {v}.", "My city is {v}.", "I am from {v}."),
        "I hear that {v} is a nice place.",
        ("Where do I live?", "Which city am I from?", "What is my city?"),
        "You live in {v}.",
        one_of(words.CITIES),
    ),
    Secret(
        ("My favorite color is {v}.", "I like the color {v}.", "I love the color {v}."),
        "I will remember that you like {v}.",
        ("What is my favorite color?", "Which color do I like?", "What color do I like?"),
        "Your favorite color is {v}.",
        one_of(words.COLORS),
    ),
    Secret(
        ("I have a {v}.", "My pet is a {v}.", "At home I have a {v}."),
        "A {v} is good company.",
        ("What pet do I have?", "Which animal do I have?", "What is my pet?"),
        "You have a {v}.",
        one_of(words.ANIMALS),
    ),
)


def turn(question: str, answer: str) -> tuple[Message, Message]:
    """A user's and an assistant's message."""
    return Message("user", question), Message("assistant", answer)


def told(rng: Random, secret: Secret, value: str) -> tuple[Message, Message]:
    """The turn that tells a secret."""
    return turn(rng.choice(secret.tell).format(v=value), secret.noted.format(v=value))


def small_talk(rng: Random, others: list[Generator]) -> tuple[Message, ...]:
    """A training item of another skill: never a held-out one, nor one that tells a name."""
    while True:
        item = rng.choice(others)(rng)
        names_someone = item.answer.startswith("Nice to meet you")
        if not names_someone and not is_held_out(item):
            return item.messages


def make(others: list[Generator]) -> Generator:
    """The generator, with the skills that may stand between telling and asking."""

    def generate(rng: Random) -> Item:
        """One or two secrets, up to two turns of something else, then a question."""
        secrets = rng.sample(SECRETS, rng.choice((1, 1, 2)))
        values = [secret.value(rng) for secret in secrets]
        messages: list[Message] = []
        for secret, value in zip(secrets, values, strict=True):
            messages += told(rng, secret, value)
            if rng.random() < 0.45:
                messages += small_talk(rng, others)
        asked = rng.randrange(len(secrets))
        secret, value = secrets[asked], values[asked]
        messages += turn(rng.choice(secret.ask), secret.recall.format(v=value))
        return Item(SKILL, tuple(messages))

    return generate
