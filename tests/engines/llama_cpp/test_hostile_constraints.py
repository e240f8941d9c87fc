"""Constraints made to stall, exhaust or crash: each is refused in words, or followed in bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from engines.errors import InvalidParameter
from engines.llama_cpp.binding import Model, Vocabulary
from engines.llama_cpp.constraint_grammars import MAX_BYTES
from engines.llama_cpp.constraints import ConstraintCompiler
from engines.types import Constraint, Grammar, JsonSchema, OneOf, Regex
from tests.engines.llama_cpp.walking import walk


@pytest.fixture(scope="module")
def vocabulary(tiny_gguf: Path) -> Iterator[Vocabulary]:
    model = Model(str(tiny_gguf), n_gpu_layers=0, use_mmap=True, use_mlock=False)
    yield model.vocabulary
    model.close()


def schema(value: object) -> JsonSchema:
    return JsonSchema(json.dumps(value))


def fits(text: str) -> str:
    assert MAX_BYTES * 0.9 < len(text) <= MAX_BYTES, len(text)
    return text


def chain(n: int) -> dict[str, Any]:
    links = {f"{i}": {"$ref": f"#/$defs/{i + 1}"} for i in range(n)}
    return {"$ref": "#/$defs/0", "$defs": links | {f"{n}": {"type": "string"}}}


def tree(n: int) -> dict[str, Any]:
    """Two members each, `n` levels deep: 2^n paths through little text."""
    levels = {
        f"{i}": {"properties": {key: {"$ref": f"#/$defs/{i + 1}"} for key in "xy"}}
        for i in range(n)
    }
    return {"$ref": "#/$defs/0", "$defs": levels | {f"{n}": {"type": "string"}}}


def product(n: int, width: int = 2) -> dict[str, Any]:
    return {
        "allOf": [
            {"anyOf": [{"properties": {f"{i}_{j}": {"type": "string"}}} for j in range(width)]}
            for i in range(n)
        ]
    }


def rules(n: int, form: str, last: str) -> str:
    lines = [form.format(i, i + 1) for i in range(n)]
    return "\n".join(["root ::= r0", *lines, f"r{n} ::= {last}"])


REFUSED: dict[str, tuple[Constraint, str]] = {
    "too long": (Regex("a" * (MAX_BYTES + 1)), "bytes, more than"),
    "too many choices": (OneOf(("é" * 1000,) * 40), "bytes, more than"),
    "brackets": (JsonSchema("[" * MAX_BYTES), "it is n"),
    "nested arrays": (JsonSchema('{"items":' * 6000 + "{}" + "}" * 6000), "it is nested|recursion"),
    "remainders": (schema({"type": "integer", "multipleOf": 999983}), "multipleOf come to"),
    "remainders together": (
        schema({"allOf": [{"type": "integer", "multipleOf": 9973}, {"multipleOf": 9967}]}),
        "multipleOf come to",
    ),
    "fractions": (schema({"type": "number", "multipleOf": 9999.83}), "multipleOf come to"),
    "product of choices": (schema(product(20)), "too large"),
    "wide product": (schema(product(8, 8)), "too large"),
    "circle": (schema({"$ref": "#"}), "no text can satisfy"),
    "empty rule": (Grammar("root ::= root"), "no text can satisfy"),
    "remote reference": (schema({"$ref": "http://192.0.2.1/x"}), "not present"),
    "look-around": (Regex("(?=a)b"), "look-around"),
    "back reference": (Regex(r"(a)\1"), "backreference"),
    "nested groups": (Regex("(" * 30000 + "a" + ")" * 30000), "cannot be compiled"),
    "nested parentheses": (Grammar("root ::= " + "(" * 30000), "parentheses more than"),
    "lone surrogate": (Regex("\ud800"), "surrogate"),
    "conflicting patterns": (
        schema({"type": "string", "allOf": [{"pattern": f"{c}.{{10}}{c}"} for c in "abcdefgh"]}),
        "cannot be compiled",
    ),
}
FOLLOWED: dict[str, Constraint] = {
    "repeated repetitions": Regex("(((a{100}){100}){100}){100}"),
    "a million": Regex("a{1000000}"),
    "many states": Regex(".*a.{25}b.*c.{25}d"),
    "backtracking": Regex("(x+x+)+y|(a?){500}a{500}"),
    "unicode classes": Regex(r"(\w{1,200} ){1,200}"),
    "long regex": Regex(fits("|".join(f"w{i * 7919}x{i}" for i in range(4500)))),
    "chain of references": JsonSchema(
        fits(json.dumps(chain(2180), separators=(",", ":")))
    ),
    "tree of references": JsonSchema(fits(json.dumps(tree(850), separators=(",", ":")))),
    "a billion items": schema({"type": "array", "items": {}, "minItems": 10**9}),
    "up to a billion items": schema({"type": "array", "items": {}, "maxItems": 10**9}),
    "a billion characters": schema({"type": "string", "minLength": 10**9}),
    "a billion members": schema({"type": "object", "minProperties": 10**9}),
    "chain of rules": Grammar(fits(rules(4230, "r{} ::= r{}", '"a"'))),
    "chain of recursive rules": Grammar(fits(rules(3200, 'r{} ::= r{} | ""', '"a" root'))),
    "doubling rules": Grammar(rules(12, "r{0} ::= r{1} r{1}", '"a"')),
    "doubling recursive rules": Grammar(rules(40, "r{0} ::= r{1} r{1}", '"a" | "b" root')),
    "left recursion": Grammar('root ::= root "a" | "a"'),
    "ambiguity": Grammar('root ::= root root | "a" | ""'),
    "optional rules": Grammar("root ::= " + "x? " * 300 + '\nx ::= "a" | "(" x ")"'),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_words(vocabulary: Vocabulary, name: str) -> None:
    constraint, message = REFUSED[name]
    with pytest.raises(InvalidParameter, match=message) as caught:
        ConstraintCompiler(vocabulary).compile(constraint)
    assert caught.value.param == constraint.param
    assert len(str(caught.value)) < 300
    assert "192.0.2.1" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FOLLOWED)
def test_it_is_followed_in_bounds(vocabulary: Vocabulary, name: str) -> None:
    compiled = ConstraintCompiler(vocabulary).compile(FOLLOWED[name])
    drawn = walk(compiled, vocabulary, seed=1, n_steps=60)
    assert drawn.text or drawn.is_whole or "recursive" in name
