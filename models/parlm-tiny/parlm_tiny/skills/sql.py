"""Text to SQL over a schema given in the prompt; every query runs on SQLite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from parlm_tiny import words
from parlm_tiny.items import Item, ask

SKILL = "sql"

TABLES: dict[str, tuple[str, ...]] = {
    "users": ("name", "age", "city", "email"),
    "employees": ("name", "salary", "job", "city", "age"),
    "customers": ("name", "city", "age", "email"),
    "orders": ("item", "price", "quantity", "city", "year"),
    "products": ("name", "price", "color", "quantity", "weight"),
    "books": ("title", "author", "price", "year", "pages"),
    "cars": ("model", "color", "price", "year", "owner"),
    "pets": ("name", "owner", "color", "age", "weight"),
    "students": ("name", "age", "city", "score"),
    "movies": ("title", "year", "score", "author"),
    "hotels": ("name", "city", "price", "score"),
    "players": ("name", "score", "age", "city"),
    "companies": ("name", "city", "year", "size"),
    "houses": ("owner", "city", "price", "size", "year"),
}

NUMBERS: dict[str, range] = {
    "age": range(18, 90),
    "salary": range(1000, 9000, 100),
    "price": range(5, 900, 5),
    "quantity": range(2, 100),
    "year": range(1980, 2025),
    "pages": range(50, 900, 10),
    "weight": range(2, 90),
    "score": range(10, 100),
    "size": range(20, 500, 10),
}

TEXTS: dict[str, tuple[str, ...]] = {
    "name": tuple(words.NAMES[:40]),
    "owner": tuple(words.NAMES[:40]),
    "author": tuple(words.NAMES[:40]),
    "city": tuple(words.CITIES[:24]),
    "color": tuple(words.COLORS),
    "job": tuple(words.JOBS),
    "item": tuple(words.THINGS),
    "title": tuple(words.COMPANIES),
    "model": tuple(words.COMPANIES),
    "email": ("mail",),
}


@dataclass(frozen=True)
class Table:
    """A table of the prompt's schema: the columns that this prompt shows."""

    name: str
    columns: tuple[str, ...]

    def numbers(self) -> list[str]:
        """Columns that hold numbers."""
        return [column for column in self.columns if column in NUMBERS]

    def filters(self) -> list[str]:
        """Text columns that a condition may name."""
        return [column for column in self.columns if column in TEXTS and column != "email"]

    def create(self) -> str:
        """The CREATE TABLE statement."""
        typed = (
            f"{column} {'INTEGER' if column in NUMBERS else 'TEXT'}" for column in self.columns
        )
        return f"CREATE TABLE {self.name} ({', '.join(typed)})"

    def short(self) -> str:
        """The short form, ``table(column, column)``."""
        return f"{self.name}({', '.join(self.columns)})"


Query = tuple[str, str]
"""A question and its SQL."""


def condition(rng: Random, table: Table) -> Query:
    """A WHERE condition: in words and in SQL."""
    texts, numbers = table.filters(), table.numbers()
    if texts and (not numbers or rng.random() < 0.5):
        column = rng.choice(texts)
        value = rng.choice(TEXTS[column])
        said = rng.choice(("where the {c} is {v}", "whose {c} is {v}", "with {c} {v}"))
        return said.format(c=column, v=value), f"WHERE {column} = '{value}'"
    column = rng.choice(numbers)
    value = str(rng.choice(NUMBERS[column]))
    said, sign = rng.choice(
        (
            ("with {c} greater than {v}", ">"),
            ("with {c} above {v}", ">"),
            ("with {c} over {v}", ">"),
            ("with {c} less than {v}", "<"),
            ("with {c} below {v}", "<"),
            ("with {c} under {v}", "<"),
            ("where the {c} is {v}", "="),
            ("with {c} {v}", "="),
        )
    )
    return said.format(c=column, v=value), f"WHERE {column} {sign} {value}"


def maybe_condition(rng: Random, table: Table, share: float) -> Query:
    """A condition with its leading space, or nothing."""
    if rng.random() >= share:
        return "", ""
    said, sql = condition(rng, table)
    return f" {said}", f" {sql}"


def select_all(rng: Random, table: Table) -> Query:
    """All columns."""
    said, where = maybe_condition(rng, table, 0.8)
    phrase = rng.choice(
        ("Show all {t}{w}.", "List all {t}{w}.", "Find all {t}{w}.", "Get the {t}{w}.")
    )
    return phrase.format(t=table.name, w=said), f"SELECT * FROM {table.name}{where};"


def select_columns(rng: Random, table: Table) -> Query:
    """One or two columns."""
    columns = rng.sample(table.columns, rng.choice((1, 2)))
    said, where = maybe_condition(rng, table, 0.75)
    phrase = rng.choice(
        ("Show the {c} of all {t}{w}.", "List the {c} of {t}{w}.", "What is the {c} of {t}{w}?")
    )
    question = phrase.format(c=" and ".join(columns), t=table.name, w=said)
    return question, f"SELECT {', '.join(columns)} FROM {table.name}{where};"


def count(rng: Random, table: Table) -> Query:
    """A count of rows."""
    said, where = maybe_condition(rng, table, 0.75)
    phrase = rng.choice(
        ("How many {t} are there{w}?", "Count the {t}{w}.", "What is the number of {t}{w}?")
    )
    return phrase.format(t=table.name, w=said), f"SELECT COUNT(*) FROM {table.name}{where};"


AGGREGATES = (
    ("average", "AVG"),
    ("mean", "AVG"),
    ("highest", "MAX"),
    ("maximum", "MAX"),
    ("lowest", "MIN"),
    ("minimum", "MIN"),
    ("total", "SUM"),
    ("sum of", "SUM"),
)


def aggregate(rng: Random, table: Table) -> Query:
    """An aggregate of a number column."""
    said_function, function = rng.choice(AGGREGATES)
    column = rng.choice(table.numbers())
    said, where = maybe_condition(rng, table, 0.5)
    phrase = rng.choice(
        (
            "What is the {f} {c} of {t}{w}?",
            "Find the {f} {c} of all {t}{w}.",
            "Show the {f} {c} of {t}{w}.",
        )
    )
    question = phrase.format(f=said_function, c=column, t=table.name, w=said)
    return question, f"SELECT {function}({column}) FROM {table.name}{where};"


def top(rng: Random, table: Table) -> Query:
    """The first rows by a number column."""
    column, limit = rng.choice(table.numbers()), rng.randint(2, 10)
    high = rng.random() < 0.5
    phrase = rng.choice(
        (
            "Show the {n} {t} with the {w} {c}.",
            "List the {n} {t} with the {w} {c}.",
            "Which {n} {t} have the {w} {c}?",
        )
    )
    question = phrase.format(n=limit, t=table.name, w="highest" if high else "lowest", c=column)
    order = f"ORDER BY {column}{' DESC' if high else ''} LIMIT {limit}"
    return question, f"SELECT * FROM {table.name} {order};"


def ordered(rng: Random, table: Table) -> Query:
    """All rows in order."""
    column = rng.choice(table.columns)
    down = rng.random() < 0.4
    phrase = rng.choice(("List all {t} ordered by {c}{d}.", "Show all {t} sorted by {c}{d}."))
    question = phrase.format(t=table.name, c=column, d=" descending" if down else "")
    return question, f"SELECT * FROM {table.name} ORDER BY {column}{' DESC' if down else ''};"


def grouped(rng: Random, table: Table) -> Query:
    """A count or an average for each value of a text column."""
    column = rng.choice(table.filters())
    if rng.random() < 0.5:
        phrase = rng.choice(
            (
                "How many {t} are there for each {c}?",
                "Count the {t} per {c}.",
                "Show the number of {t} by {c}.",
            )
        )
        question, value = phrase.format(t=table.name, c=column), "COUNT(*)"
    else:
        said, function = rng.choice(AGGREGATES)
        number = rng.choice(table.numbers())
        phrase = rng.choice(
            ("What is the {f} {n} of {t} for each {c}?", "Show the {f} {n} of {t} per {c}.")
        )
        question = phrase.format(f=said, n=number, t=table.name, c=column)
        value = f"{function}({number})"
    return question, f"SELECT {column}, {value} FROM {table.name} GROUP BY {column};"


KINDS: tuple[tuple[Callable[[Random, Table], Query], int], ...] = (
    (select_all, 3),
    (select_columns, 3),
    (count, 2),
    (aggregate, 3),
    (top, 2),
    (ordered, 1),
    (grouped, 2),
)


def draw_table(rng: Random, name: str) -> Table:
    """A table with some of its columns, in any order: at least one number and one text."""
    while True:
        columns = TABLES[name]
        shown = rng.sample(columns, rng.randint(3, len(columns)))
        table = Table(name, tuple(shown))
        if table.numbers() and table.filters():
            return table


ORDERS = (
    "{schema}\n{question}",
    "{schema}\nWrite SQL: {question}",
    "Schema: {schema}\nQuestion: {question}",
    "Given the schema {schema}, write a SQL query: {question}",
    "Tables: {schema}\n{question} Answer with SQL.",
)


def generate(rng: Random) -> Item:
    """A schema of one table or of two (one a distractor), a question and its query."""
    names = rng.sample(sorted(TABLES), rng.choice((1, 1, 2)))
    tables = [draw_table(rng, name) for name in names]
    table = tables[0]
    rng.shuffle(tables)
    kinds, weights = zip(*KINDS, strict=True)
    question, query = rng.choices(kinds, weights)[0](rng, table)
    if rng.random() < 0.4:
        schema = "; ".join(one.create() for one in tables)
    else:
        schema = ", ".join(one.short() for one in tables)
    text = rng.choice(ORDERS).format(schema=schema, question=question)
    facts = {one.name: list(one.columns) for one in tables}
    return ask(SKILL, text, query, tables=facts)
