"""Addition and subtraction up to three digits, the answer showing its working by columns."""

from __future__ import annotations

from random import Random

from parlm_tiny.items import Item, ask, vary

SKILL = "arithmetic"
COLUMNS = ("Ones", "Tens", "Hundreds")

ADD = (
    "What is {a} + {b}?",
    "{a} + {b}",
    "{a} + {b} = ?",
    "{a}+{b}",
    "{a} plus {b}",
    "What is {a}+{b}?",
    "What is {a} plus {b}?",
    "Add {a} and {b}.",
    "Calculate {a} + {b}.",
    "Please compute {a} + {b}.",
    "What is the sum of {a} and {b}?",
    "How much is {a} + {b}?",
    "What's {a} + {b}?",
)
SUBTRACT = (
    "What is {a} - {b}?",
    "{a} - {b}",
    "{a} - {b} = ?",
    "{a}-{b}",
    "{a} minus {b}",
    "What is {a}-{b}?",
    "What is {a} minus {b}?",
    "Subtract {b} from {a}.",
    "Calculate {a} - {b}.",
    "Please compute {a} - {b}.",
    "Take {b} away from {a}.",
    "How much is {a} - {b}?",
    "What's {a} - {b}?",
)


def digits(number: int, width: int) -> list[int]:
    """Decimal digits from the ones upwards, padded with zeros to ``width``."""
    return [number // 10**place % 10 for place in range(width)]


def addition_working(a: int, b: int) -> str:
    """Column sums with their carries, such as ``Ones: 7 + 5 = 12. Tens: 4 + 8 + 1 = 13``."""
    width, carry, steps = len(str(max(a, b))), 0, []
    for name, x, y in zip(COLUMNS, digits(a, width), digits(b, width), strict=False):
        total = x + y + carry
        steps.append(f"{name}: {x} + {y}{' + 1' if carry else ''} = {total}.")
        carry = total // 10
    return " ".join(steps)


def subtraction_working(a: int, b: int) -> str:
    """Column differences for ``a >= b``; a column too small takes ten and borrows one."""
    width, borrow, steps = len(str(a)), 0, []
    for name, x, y in zip(COLUMNS, digits(a, width), digits(b, width), strict=False):
        short = x - y - borrow < 0
        top = x + 10 if short else x
        rest = f"{top} - {y}{' - 1' if borrow else ''} = {top - y - borrow}"
        steps.append(f"{name}: {rest}{', borrow 1' if short else ''}.")
        borrow = int(short)
    return " ".join(steps)


def addition_answer(a: int, b: int) -> str:
    """The working and the sum."""
    return f"{addition_working(a, b)} So {a} + {b} = {a + b}."


def subtraction_answer(a: int, b: int) -> str:
    """The working and the difference; a negative one is computed the other way round."""
    if a < b:
        turn = f"{a} is less than {b}, so compute {b} - {a}. "
        return f"{turn}{subtraction_working(b, a)} So {a} - {b} = {a - b}."
    return f"{subtraction_working(a, b)} So {a} - {b} = {a - b}."


def number(rng: Random) -> int:
    """A number of one, two or three digits, three being the most frequent."""
    limit = rng.choices((10, 100, 1000), (1, 3, 5))[0]
    return rng.randrange(limit)


def generate(rng: Random) -> Item:
    """One sum or difference in one of many phrasings."""
    a, b = number(rng), number(rng)
    if rng.random() < 0.45:
        return ask(SKILL, vary(rng, rng.choice(ADD).format(a=a, b=b)), addition_answer(a, b))
    if a < b and rng.random() < 0.4:
        a, b = b, a
    question = rng.choice(SUBTRACT).format(a=a, b=b)
    return ask(SKILL, vary(rng, question), subtraction_answer(a, b))
