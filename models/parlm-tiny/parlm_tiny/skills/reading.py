"""Reading comprehension: a short passage of facts and a question about one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from parlm_tiny import words
from parlm_tiny.items import Item, ask

SKILL = "reading"


@dataclass(frozen=True)
class Fact:
    """A sentence about a person (``{n}``) with a value (``{v}``), and what can be asked."""

    sentence: str
    value: Callable[[Random], str]
    questions: tuple[str, ...]
    answer: str
    who: str = ""
    """The question that has the person as its answer; empty if the value is no fair clue."""


def one_of(values: list[str]) -> Callable[[Random], str]:
    """A draw from a list."""
    return lambda rng: rng.choice(values)


FACTS = (
    Fact(
        "{n} lives in {v}.",
        one_of(words.CITIES),
        ("Where does {n} live?", "In which city does {n} live?", "What city does {n} live in?"),
        "{n} lives in {v}.",
        "Who lives in {v}?",
    ),
    Fact(
        "{n} works as a {v}.",
        one_of(words.JOBS),
        ("What does {n} do?", "What is the job of {n}?", "What does {n} work as?"),
        "{n} works as a {v}.",
        "Who works as a {v}?",
    ),
    Fact(
        "{n} is {v} years old.",
        lambda rng: str(rng.randrange(18, 90)),
        ("How old is {n}?", "What is the age of {n}?"),
        "{n} is {v} years old.",
        "Who is {v} years old?",
    ),
    Fact(
        "{n} has a {v}.",
        one_of(words.ANIMALS),
        ("What pet does {n} have?", "What animal does {n} have?"),
        "{n} has a {v}.",
        "Who has a {v}?",
    ),
    Fact(
        "{n} likes {v}.",
        one_of(words.FOODS),
        ("What does {n} like?", "What food does {n} like?", "What does {n} like to eat?"),
        "{n} likes {v}.",
        "Who likes {v}?",
    ),
    Fact(
        "{n} plays {v}.",
        one_of(words.SPORTS),
        ("What does {n} play?", "What game does {n} play?"),
        "{n} plays {v}.",
        "Who plays {v}?",
    ),
    Fact(
        "{n} arrives on {v}.",
        one_of(words.DAYS),
        ("When does {n} arrive?", "On which day does {n} arrive?"),
        "{n} arrives on {v}.",
        "Who arrives on {v}?",
    ),
    Fact(
        "{n} was born in {v}.",
        one_of(words.MONTHS),
        ("When was {n} born?", "In which month was {n} born?"),
        "{n} was born in {v}.",
        "Who was born in {v}?",
    ),
    Fact(
        "{n} drives a {v} car.",
        one_of(words.COLORS),
        ("What color is the car of {n}?", "Which car does {n} drive?"),
        "{n} drives a {v} car.",
        "Who drives a {v} car?",
    ),
    Fact(
        "{n} bought {v}.",
        lambda rng: f"{rng.randrange(2, 60)} {rng.choice(words.THINGS)}",
        ("What did {n} buy?",),
        "{n} bought {v}.",
        "Who bought {v}?",
    ),
    Fact(
        "{n} speaks {v}.",
        one_of(words.LANGUAGES),
        ("Which language does {n} speak?", "What language does {n} speak?"),
        "{n} speaks {v}.",
        "Who speaks {v}?",
    ),
)
ORDERS = (
    "{passage}\n{question}",
    "{passage}\n\n{question}",
    "{passage} {question}",
    "Read this: {passage}\n{question}",
    "Passage: {passage}\nQuestion: {question}",
    "Context: {passage}\nQuestion: {question}",
)


def draw_facts(rng: Random) -> list[tuple[str, Fact, str]]:
    """Two to five facts about one to three people; no fact and no value comes twice."""
    people = rng.sample(words.NAMES, rng.choice((1, 2, 2, 3)))
    kinds = rng.sample(FACTS, rng.choice((2, 2, 3)))
    pairs = [(name, fact) for fact in kinds for name in people]
    chosen = rng.sample(pairs, min(len(pairs), rng.randint(2, 5)))
    drawn: list[tuple[str, Fact, str]] = []
    for name, fact in chosen:
        taken = {value for _, other, value in drawn if other is fact}
        value = fact.value(rng)
        while value in taken:
            value = fact.value(rng)
        drawn.append((name, fact, value))
    return drawn


def value_question(rng: Random, name: str, fact: Fact, value: str) -> str:
    """A question about what a person has, does, likes, ..."""
    if fact.sentence.startswith("{n} bought") and rng.random() < 0.6:
        return f"How many {value.split()[1]} did {name} buy?"
    return rng.choice(fact.questions).format(n=name)


def who_question(fact: Fact, value: str) -> str:
    """A question about the person."""
    return fact.who.format(v=value)


def written(rng: Random, drawn: list[tuple[str, Fact, str]], question: str, answer: str) -> Item:
    """The passage of the drawn facts and the question, laid out in one of several ways."""
    passage = " ".join(fact.sentence.format(n=name, v=value) for name, fact, value in drawn)
    return ask(SKILL, rng.choice(ORDERS).format(passage=passage, question=question), answer)


def generate_mixed(rng: Random) -> Item:
    """A passage in which several people may share a kind of fact, and a question about one."""
    drawn = draw_facts(rng)
    name, fact, value = rng.choice(drawn)
    if rng.random() < 0.3:
        question = who_question(fact, value)
    else:
        question = value_question(rng, name, fact, value)
    return written(rng, drawn, question, fact.answer.format(n=name, v=value))


def generate(rng: Random) -> Item:
    """A passage with each kind of fact once; the person is asked for only if there is one."""
    people = rng.sample(words.NAMES, rng.choice((1, 1, 2, 3)))
    kinds = rng.sample(FACTS, rng.randint(2, 5))
    drawn = [(rng.choice(people), fact, fact.value(rng)) for fact in kinds]
    name, fact, value = rng.choice(drawn)
    if len({one for one, _, _ in drawn}) == 1 and rng.random() < 0.4:
        question = who_question(fact, value)
    else:
        question = value_question(rng, name, fact, value)
    return written(rng, drawn, question, fact.answer.format(n=name, v=value))
