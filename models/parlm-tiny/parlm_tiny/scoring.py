"""When an answer counts as right."""

from __future__ import annotations

import json
import re
import sqlite3
from random import Random
from typing import Any

from parlm_tiny.items import Item
from parlm_tiny.skills import arithmetic, extraction, sql, tools

ROWS = 40
"""Rows of each table of the random database that SQL is executed on."""


def final_number(text: str) -> str | None:
    """The number after the equals sign that ends a text."""
    found = re.search(r"= (-?\d+)\.?\s*$", text)
    return found.group(1) if found else None


def database(tables: dict[str, list[str]], seed: int) -> sqlite3.Connection:
    """A database in memory of the prompt's tables with random rows."""
    rng = Random(f"database/{seed}")
    connection = sqlite3.connect(":memory:")
    for name, columns in tables.items():
        kinds = (f"{column} {'INTEGER' if column in sql.NUMBERS else 'TEXT'}" for column in columns)
        connection.execute(f"CREATE TABLE {name} ({', '.join(kinds)})")
        marks = ", ".join("?" for _ in columns)
        for _ in range(ROWS):
            row = [cell(rng, column) for column in columns]
            connection.execute(f"INSERT INTO {name} VALUES ({marks})", row)
    return connection


def cell(rng: Random, column: str) -> int | str:
    """A random value of a column; few distinct ones, so that conditions match some rows."""
    if column in sql.NUMBERS:
        return rng.choice(sql.NUMBERS[column])
    return rng.choice(sql.TEXTS[column])


def rows_of(query: str, tables: dict[str, list[str]], seed: int) -> list[Any] | None:
    """What a query returns, None if it fails; rows without ORDER BY are sorted."""
    try:
        rows = database(tables, seed).execute(query).fetchall()
    except sqlite3.Error:
        return None
    return rows if "ORDER BY" in query else sorted(rows, key=repr)


def same_results(query: str, expected: str, tables: dict[str, list[str]]) -> bool:
    """Whether two queries return the same on three random databases."""
    for seed in range(3):
        wanted = rows_of(expected, tables, seed)
        if wanted is None or rows_of(query, tables, seed) != wanted:
            return False
    return True


def parsed(text: str) -> Any:
    """The JSON value of a text, or None."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def parsed_call(text: str) -> Any:
    """The JSON value of a tool call, or None if the text is not exactly one call."""
    found = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", text.strip())
    return parsed(found.group(1)) if found else None


def is_right(item: Item, text: str) -> bool:
    """Whether ``text`` is a right answer to the item."""
    answer = item.answer
    if item.skill == arithmetic.SKILL:
        return final_number(text) == final_number(answer)
    if item.skill == sql.SKILL:
        return same_results(text.strip(), answer, item.facts["tables"])
    if item.skill == extraction.SKILL:
        return bool(parsed(text) == parsed(answer))
    if item.skill == tools.SKILL and item.facts["kind"] == "call":
        return bool(parsed_call(text) == parsed_call(answer))
    return text.strip() == answer
