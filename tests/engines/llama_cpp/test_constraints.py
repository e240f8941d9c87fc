from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jsonschema
import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from engines.errors import EngineOverloaded, InvalidParameter, UnsupportedParameter
from engines.llama_cpp import constraints
from engines.llama_cpp.binding import Model, Vocabulary
from engines.llama_cpp.constraints import ConstraintCompiler
from engines.types import Constraint, Grammar, JsonObject, JsonSchema, OneOf, Regex
from tests.engines.llama_cpp.walking import accepts, walk

NODE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
            "additionalProperties": False,
        }
    },
}
KINDS = {
    "oneOf": [
        {
            "type": "object",
            "properties": {"kind": {"const": kind}, "size": {"type": "integer", "minimum": 1}},
            "required": ["kind", "size"],
            "additionalProperties": False,
        }
        for kind in ("cat", "dog")
    ],
    "discriminator": {"propertyName": "kind"},
}
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object"},
    {"enum": ["red", "green", 3, None]},
    {"const": {"a": [1, "é"]}},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}], "items": False},
    {"type": "integer", "minimum": -5, "exclusiveMaximum": 130},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    {"type": "number", "multipleOf": 0.25},
    {"type": "string", "pattern": r"^\d{3}-[A-Z]+$"},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
    {"type": ["string", "null"], "title": "A name", "default": None},
    {"allOf": [{"type": "object", "required": ["b"]}, {"properties": {"b": {"type": "null"}}}]},
    {"definitions": {"X": {"enum": [1, 2]}}, "$ref": "#/definitions/X"},
    NODE,
    KINDS,
]


@pytest.fixture(scope="module")
def vocabulary(tiny_gguf: Path) -> Iterator[Vocabulary]:
    model = Model(str(tiny_gguf), n_gpu_layers=0, use_mmap=True, use_mlock=False)
    yield model.vocabulary
    model.close()


@pytest.fixture
def compiler(vocabulary: Vocabulary) -> ConstraintCompiler:
    return ConstraintCompiler(vocabulary)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
def test_whatever_is_drawn_validates(
    compiler: ConstraintCompiler, vocabulary: Vocabulary, schema: dict[str, Any]
) -> None:
    compiled = compiler.compile(JsonSchema(json.dumps(schema)))
    walks = [walk(compiled, vocabulary, seed) for seed in range(25)]
    whole = [json.loads(walk.text) for walk in walks if walk.is_whole]
    assert len(whole) > 5
    for value in whole:
        jsonschema.validate(value, schema, format_checker=jsonschema.FormatChecker())


def test_an_object_is_an_object(compiler: ConstraintCompiler, vocabulary: Vocabulary) -> None:
    compiled = compiler.compile(JsonObject())
    walks = [walk(compiled, vocabulary, seed) for seed in range(20)]
    assert all(isinstance(json.loads(walk.text), dict) for walk in walks if walk.is_whole)
    assert accepts(compiled, vocabulary, '{"a": [1, {"b": null}],\n  "c": "\\u0000"}')
    assert not accepts(compiled, vocabulary, "[1]")


@pytest.mark.parametrize("pattern", [r"\d{3}-[a-f]{2,5}", r"^(a|ab)c*$", "é+/|x", "(?i)yes|no"])
def test_the_whole_answer_matches(
    compiler: ConstraintCompiler, vocabulary: Vocabulary, pattern: str
) -> None:
    compiled = compiler.compile(Regex(pattern))
    for seed in range(10):
        drawn = walk(compiled, vocabulary, seed)
        if drawn.is_whole:
            assert re.fullmatch(pattern, drawn.text)


def test_digits_are_ascii(compiler: ConstraintCompiler, vocabulary: Vocabulary) -> None:
    compiled = compiler.compile(Regex(r"\d"))
    assert accepts(compiled, vocabulary, "7")
    assert not accepts(compiled, vocabulary, "٣")


def test_choices_may_hold_any_character(
    compiler: ConstraintCompiler, vocabulary: Vocabulary
) -> None:
    choices = ("a", "ab", 'say "x"', "\\", "\x00\x7f\x85", "\u2028😀", "/x/", "<a>")
    compiled = compiler.compile(OneOf(choices))
    assert all(accepts(compiled, vocabulary, choice) for choice in choices)
    assert not any(accepts(compiled, vocabulary, text) for text in ("", "abc", "say", "A"))
    assert {walk(compiled, vocabulary, seed).text for seed in range(60)} == set(choices)


def test_a_recursive_grammar(compiler: ConstraintCompiler, vocabulary: Vocabulary) -> None:
    compiled = compiler.compile(Grammar('root ::= "(" root ")" | [a-z]{1,3}'))
    assert accepts(compiled, vocabulary, "((abc))")
    assert not accepts(compiled, vocabulary, "((abc)")
    assert not accepts(compiled, vocabulary, "(abcd)")


def test_white_space_is_bounded(compiler: ConstraintCompiler, vocabulary: Vocabulary) -> None:
    compiled = compiler.compile(JsonObject())
    assert accepts(compiled, vocabulary, '{\n    "a": {\n        "b": 1\n    }\n}')
    assert not accepts(compiled, vocabulary, '{"a":' + 40 * " " + "1}")


def test_a_client_cannot_switch_enforcement_off(compiler: ConstraintCompiler) -> None:
    schema = {"not": {"type": "string"}, "x-guidance": {"lenient": True}}
    with pytest.raises(InvalidParameter, match='Unimplemented keys: \\["not"\\]'):
        compiler.compile(JsonSchema(json.dumps(schema)))


def test_a_tokenizer_that_adds_a_space_does_no_harm(vocabulary: Vocabulary) -> None:
    # As SentencePiece's: llguidance panics on it where it forces text.
    spaced = SimpleNamespace(
        pieces=vocabulary.pieces,
        names=vocabulary.names,
        end_tokens=vocabulary.end_tokens,
        bos=vocabulary.bos,
        n_tokens=vocabulary.n_tokens,
        tokenize=lambda text: vocabulary.tokenize(b" " + text),
    )
    compiled = ConstraintCompiler(cast(Vocabulary, spaced)).compile(JsonSchema('{"const": "abc"}'))
    assert walk(compiled, vocabulary, 0).text == '"abc"'


def test_choices_of_one_request_go_their_own_ways(
    compiler: ConstraintCompiler, vocabulary: Vocabulary
) -> None:
    compiled = compiler.compile(OneOf(("ab", "cd")))
    first, second = compiled.start(()), compiled.start(())
    first.accept(vocabulary.pieces.index(b"a"))
    second.accept(vocabulary.pieces.index(b"c"))
    for state, last in ((first, b"b"), (second, b"d")):
        row = np.zeros(vocabulary.n_tokens, np.float32)
        state.restrict(row)
        assert [vocabulary.pieces[i] for i in np.flatnonzero(row == 0)] == [last]


def test_a_stop_token_that_is_text_ends_only_what_is_satisfied(
    compiler: ConstraintCompiler, vocabulary: Vocabulary
) -> None:
    token = vocabulary.pieces.index(b"a")
    state = compiler.compile(Regex("aa|b")).start([token])
    row = np.zeros(vocabulary.n_tokens, np.float32)
    state.restrict(row)
    assert row[token] == -np.inf


def test_what_a_vocabulary_cannot_spell_is_an_error(vocabulary: Vocabulary) -> None:
    without = SimpleNamespace(
        pieces=[piece if b"z" not in piece else b"?" for piece in vocabulary.pieces],
        names=[name if b"z" not in name else b"?" for name in vocabulary.names],
        end_tokens=vocabulary.end_tokens,
        bos=vocabulary.bos,
        n_tokens=vocabulary.n_tokens,
        tokenize=vocabulary.tokenize,
    )
    with pytest.raises(InvalidParameter, match="no text can satisfy it"):
        ConstraintCompiler(cast(Vocabulary, without)).compile(Regex("z"))


def test_beside_an_old_library_constraints_are_refused(
    compiler: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constraints, "VERSION", "1.7.6")
    with pytest.raises(UnsupportedParameter, match=r"needs llguidance 1\.9, 1\.7\.6 is there"):
        compiler.compile(JsonObject())


def test_a_constraint_that_takes_too_long_is_given_up(
    compiler: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler.compile(JsonObject())
    monkeypatch.setattr(constraints, "_COMPILE_SECONDS", 0.0)
    long: Constraint = JsonSchema(json.dumps({"enum": [f"value {i}" for i in range(4000)]}))
    with pytest.raises(InvalidParameter, match="takes longer"):
        compiler.compile(long)
    monkeypatch.undo()
    # One at a time: what was given up may still keep a core busy.
    with pytest.raises(EngineOverloaded):
        compiler.compile(JsonObject())
    assert compiler._thread is not None
    compiler._thread.join()
    compiler.compile(long)
