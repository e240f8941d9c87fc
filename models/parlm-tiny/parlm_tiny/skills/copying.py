"""Drills in copying words and in looking up a value by its key.

They are no skill of the model card. Most skills need a word of the prompt to be copied, and
these short items teach that far faster than the skills themselves do: every answer token is a
copy, and each word is met with and without the space before it (two different tokens).
"""

from __future__ import annotations

import json
from random import Random

from parlm_tiny import words
from parlm_tiny.items import Item, ask
from parlm_tiny.skills import sql

SKILL = "copying"

KINDS: dict[str, list[str]] = {
    "name": words.NAMES,
    "city": words.CITIES,
    "job": words.JOBS,
    "pet": words.ANIMALS,
    "color": words.COLORS,
    "food": words.FOODS,
    "day": words.DAYS,
    "month": words.MONTHS,
    "item": words.THINGS,
    "language": words.LANGUAGES,
    "company": words.COMPANIES,
    "sport": words.SPORTS,
    "column": sorted({*sql.NUMBERS, *sql.TEXTS}),
    "table": sorted(sql.TABLES),
}
VOCABULARY = sorted({word for kind in KINDS.values() for word in kind})


def copy_words(rng: Random) -> tuple[str, str]:
    """A list of words to write again, plainly, as JSON or quoted as in SQL."""
    chosen = rng.sample(VOCABULARY, rng.randint(2, 6))
    text = ", ".join(chosen)
    kind = rng.randrange(4)
    if kind == 0:
        return f"Copy: {text}", text
    if kind == 1:
        return f"Copy as JSON: {text}", json.dumps(chosen, ensure_ascii=False)
    if kind == 2:
        return f"Copy quoted: {text}", ", ".join(f"'{word}'" for word in chosen)
    return f"Copy the last word: {text}", chosen[-1]


def look_up(rng: Random) -> tuple[str, str]:
    """Pairs of a word and its partner in any order; the partner of one is asked for."""
    chosen = rng.sample(VOCABULARY, 2 * rng.randint(2, 5))
    pairs = list(zip(chosen[::2], chosen[1::2], strict=True))
    asked, answer = rng.choice(pairs)
    if rng.random() < 0.5:
        asked, answer = answer, asked
    listed = ". ".join(f"{first} and {second}" for first, second in pairs)
    return f"{listed}. Partner of {asked}?", f"{asked} and {answer}."


def fields(rng: Random) -> tuple[str, str]:
    """Named fields with values; some are asked for as JSON."""
    names = rng.sample(sorted(KINDS), rng.randint(2, 5))
    record = {name: rng.choice(KINDS[name]) for name in names}
    asked = rng.sample(names, rng.randint(1, min(3, len(names))))
    listed = ", ".join(f"{name} {value}" for name, value in record.items())
    answer = json.dumps({name: record[name] for name in asked}, ensure_ascii=False)
    return f"{listed}. JSON of {', '.join(asked)}:", answer


def generate(rng: Random) -> Item:
    """One drill."""
    return ask(SKILL, *rng.choice((copy_words, look_up, fields))(rng))
