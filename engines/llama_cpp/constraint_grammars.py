"""Constraints as grammars of llguidance, and why one cannot be compiled, in a sentence.

Every grammar is a Lark grammar with "no_forcing": without it llguidance would allow text that has
only one continuation in one split into tokens alone, found with a tokenizer that must return
exactly the bytes it is given; SentencePiece's, which puts a space in front, makes it panic.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from math import lcm
from typing import Any, assert_never

from llguidance import regex_to_lark

from engines.errors import InvalidParameter
from engines.llama_cpp.gbnf import GbnfError, gbnf_to_lark
from engines.types import Constraint, Grammar, JsonObject, JsonSchema, OneOf, Regex

MAX_BYTES = 65_536
"""Bytes a constraint may have: what takes half a second to compile in the worst case found."""
MAX_MULTIPLE = 10_000
"""The most that `multipleOf` may come to: checking divisibility takes so many states."""
_MAX_REASON = 200
# Without a bound a model that likes white space can write nothing else for ever.
_WHITE_SPACE = r"( |\n{1,2}[ \t]{0,20})"
_HEADER = '%llguidance {"no_forcing": true}\n'


def to_llguidance(constraint: Constraint) -> str:
    """Return the constraint as llguidance's JSON. Raises `InvalidParameter`."""
    _check_size(constraint)
    match constraint:
        case JsonSchema():
            return _of_schema(_read_schema(constraint))
        case JsonObject():
            return _of_schema({"type": "object"})
        case Grammar():
            try:
                return _of_lark(gbnf_to_lark(constraint.gbnf))
            except GbnfError as error:
                raise refusal(constraint, str(error)) from None
        case Regex():
            # ASCII classes, as in JSON Schema's dialect of regular expressions.
            pattern = regex_to_lark(constraint.pattern, "dw") or "(?:)"
            return _of_lark(f"start: PATTERN\nPATTERN: /{pattern}/")
        case OneOf():
            choices = " | ".join(map(json.dumps, constraint.choices))
            return _of_lark(f"start: CHOICE\nCHOICE: {choices}")
        case _:
            assert_never(constraint)


def refusal(constraint: Constraint, reason: str) -> InvalidParameter:
    """Return the error that names the constraint's field and why it cannot be had."""
    return InvalidParameter(
        constraint.param, f"{constraint.param!r} cannot be compiled: {_sentence(reason)}"
    )


def _check_size(constraint: Constraint) -> None:
    match constraint:
        case JsonSchema():
            texts: tuple[str, ...] = (constraint.schema,)
        case Grammar():
            texts = (constraint.gbnf,)
        case Regex():
            texts = (constraint.pattern,)
        case OneOf():
            texts = constraint.choices
        case JsonObject():
            texts = ()
        case _:
            assert_never(constraint)
    if isinstance(constraint, OneOf) and not texts:
        raise refusal(constraint, "there is nothing to choose from")
    try:
        size = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError:
        raise refusal(constraint, "it has a lone surrogate") from None
    if size > MAX_BYTES:
        raise refusal(constraint, f"it has {size} bytes, more than {MAX_BYTES}")


def _of_lark(rules: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": _HEADER + rules}]})


def _of_schema(schema: object) -> str:
    if isinstance(schema, dict):
        # Replaces the client's own, which could switch off what llguidance cannot enforce.
        schema = schema | {"x-guidance": {"whitespace_pattern": _WHITE_SPACE}}
    lark = {"lark_grammar": f"{_HEADER}start: @schema"}
    return json.dumps({"grammars": [lark, {"name": "schema", "json_schema": schema}]})


def _read_schema(constraint: JsonSchema) -> Any:
    try:
        schema = json.loads(constraint.schema)
        multiple = lcm(*_multiples(schema))
    except ValueError:
        raise refusal(constraint, "it is not JSON") from None
    except RecursionError:
        raise refusal(constraint, "it is nested too deep") from None
    if multiple > MAX_MULTIPLE:
        reason = f"its multipleOf come to {multiple} together, more than {MAX_MULTIPLE}"
        raise refusal(constraint, reason)
    return schema


def _multiples(schema: object) -> Iterator[int]:
    """Yield the digits of each `multipleOf` as a whole number: 25 for 0.025 and for 2500."""
    if isinstance(schema, list):
        for item in schema:
            yield from _multiples(item)
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "multipleOf" and isinstance(value, int | float) and value:
                digits = "".join(map(str, Decimal(str(abs(value))).as_tuple().digits))
                yield int(digits.strip("0") or "1")
            yield from _multiples(value)


def _sentence(reason: str) -> str:
    """Make one line of llguidance's report, without the client's own text.

    The report quotes what it is about; only names (`"not"`) are kept. In that of a regular
    expression the line that counts begins with "error:".
    """
    if reason.startswith("panic"):
        return "it is more than the library can handle"
    lines = reason.splitlines() or [""]
    line = next((line for line in lines if line.startswith("error: ")), lines[0])
    line = re.sub(r"^(?:at )?\d+\(\d+\): ", "", line.removeprefix("error: "))
    line = re.sub(r'^invalid regex ".*?" \(in regex\): ', "", line)
    line = re.sub(r"""(["'])((?:[^"'\\]|\\.)*)\1""", _kept_quote, line)
    line = re.sub(r"^(Unknown format|Invalid type): (?![\w-]{1,40}$).*", r"\1", line)
    # Here it writes out the regular expression, or goes on to its own options.
    line = re.split(r"\s*[ (]/|\s*\((?:And|Or|SearchRegex)\b|\. ", line)[0]
    return line[:_MAX_REASON].strip() or "the library gave no reason"


def _kept_quote(match: re.Match[str]) -> str:
    return match[0] if re.fullmatch(r"[A-Za-z$][\w$-]{0,39}", match[2]) else "…"
