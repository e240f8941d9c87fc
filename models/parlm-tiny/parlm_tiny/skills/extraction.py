"""Extraction of asked-for fields from a sentence or two into a JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from parlm_tiny import words
from parlm_tiny.items import Item, ask

SKILL = "extraction"

Value = str | int
Record = dict[str, Value]

VALUES: dict[str, Callable[[Random], Value]] = {
    "name": lambda rng: rng.choice(words.NAMES),
    "age": lambda rng: rng.randrange(18, 90),
    "city": lambda rng: rng.choice(words.CITIES),
    "job": lambda rng: rng.choice(words.JOBS),
    "company": lambda rng: rng.choice(words.COMPANIES),
    "pet": lambda rng: rng.choice(words.ANIMALS),
    "color": lambda rng: rng.choice(words.COLORS),
    "item": lambda rng: rng.choice(words.THINGS),
    "quantity": lambda rng: rng.randrange(2, 100),
    "price": lambda rng: rng.randrange(2, 500),
    "day": lambda rng: rng.choice(words.DAYS),
    "language": lambda rng: rng.choice(words.LANGUAGES),
}

SENTENCES = (
    "{name} is {age} years old and lives in {city}.",
    "{name} lives in {city} and works as a {job}.",
    "{name}, {age}, is a {job} from {city}.",
    "My name is {name}, I am {age} years old and I live in {city}.",
    "{name} works at {company} in {city}. {name} is {age} years old.",
    "{name} is a {job} at {company}.",
    "{name} lives in {city} with a {color} {pet}.",
    "{name} is {age} and has a {pet}. The {pet} is {color}.",
    "{name} bought {quantity} {item} for {price} dollars.",
    "On {day} {name} ordered {quantity} {color} {item}.",
    "{company} sold {quantity} {item} to {name} from {city} on {day}.",
    "{name} from {city} speaks {language} and is {age} years old.",
    "{name} is a {job} who speaks {language} and works at {company}.",
    "{quantity} {item} were sent to {name} in {city}. The price was {price} dollars.",
    "Meet {name}, a {job} of {age} years. The home of {name} is {city}.",
)
ORDERS = (
    "Extract {keys} as JSON: {text}",
    "Extract {keys} as JSON from this text: {text}",
    "Return a JSON object with the keys {keys}. Text: {text}",
    "{text}\nExtract {keys} as JSON.",
    "{text}\nGive me {keys} as JSON.",
    "Read the text and write {keys} as a JSON object.\n{text}",
)


def listed(keys: list[str]) -> str:
    """``a``, ``a and b`` or ``a, b and c``."""
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} and {keys[-1]}"


def generate(rng: Random) -> Item:
    """A sentence of a record's values and a request for some of its keys, in any order."""
    sentence = rng.choice(SENTENCES)
    held = [key for key in VALUES if "{" + key + "}" in sentence]
    record: Record = {key: VALUES[key](rng) for key in held}
    keys = rng.sample(held, rng.randint(min(2, len(held)), len(held)))
    if rng.random() < 0.5:
        keys = [key for key in held if key in keys]
    question = rng.choice(ORDERS).format(keys=listed(keys), text=sentence.format(**record))
    answer = json.dumps({key: record[key] for key in keys}, ensure_ascii=False)
    return ask(SKILL, question, answer)
