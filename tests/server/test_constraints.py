"""The ways to say what an answer must be, and what becomes of each."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import ValidationError

from adapters.base import BaseChatAdapter
from adapters.prompts import turns
from engines.echo import EchoEngine
from engines.errors import UnsupportedParameter
from engines.types import (
    Constraint,
    GenerationRequest,
    Grammar,
    JsonObject,
    JsonSchema,
    OneOf,
    Prompt,
    Regex,
)
from server.errors import invalid_body
from server.generation import chat_request, text_requests
from server.protocol import ChatCompletionRequest, CompletionRequest
from tests.serving import served

SCHEMA = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"const": "é"}}}
TEXT = json.dumps(SCHEMA, ensure_ascii=False)
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
TOOL = {"type": "function", "function": {"name": "f"}}
FORMS: list[tuple[dict[str, Any], Constraint | None]] = [
    ({"response_format": {"type": "text"}}, None),
    ({"response_format": None, "structured_outputs": {"json_object": False}}, None),
    ({"response_format": {"type": "json_object"}}, JsonObject("response_format")),
    ({"response_format": FORMAT}, JsonSchema(TEXT, "response_format.json_schema.schema")),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        JsonSchema("{}", "response_format.json_schema.schema"),
    ),
    (
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        JsonSchema(TEXT, "response_format.schema"),
    ),
    ({"structured_outputs": {"json": SCHEMA}}, JsonSchema(TEXT, "structured_outputs.json")),
    ({"structured_outputs": {"json": TEXT}}, JsonSchema(TEXT, "structured_outputs.json")),
    ({"structured_outputs": {"regex": "a+"}}, Regex("a+", "structured_outputs.regex")),
    (
        {"structured_outputs": {"choice": ["a", "b"]}},
        OneOf(("a", "b"), "structured_outputs.choice"),
    ),
    ({"structured_outputs": {"grammar": "g"}}, Grammar("g", "structured_outputs.grammar")),
    ({"structured_outputs": {"json_object": True}}, JsonObject("structured_outputs.json_object")),
    ({"grammar": "g"}, Grammar("g", "grammar")),
    ({"guided_json": SCHEMA}, JsonSchema(TEXT, "guided_json")),
    ({"guided_regex": "a+"}, Regex("a+", "guided_regex")),
    ({"guided_choice": ["a"]}, OneOf(("a",), "guided_choice")),
    ({"guided_grammar": "g"}, Grammar("g", "guided_grammar")),
    ({"guided_regex": "a", "response_format": {"type": "text"}}, Regex("a", "guided_regex")),
]


class Written(BaseChatAdapter):
    """An adapter that writes the prompt, tools and all, as text."""

    def render(self, messages: Any, tools: Any = ()) -> Prompt:
        return turns(messages, (), user="User", assistant="Assistant")


def convert(adapter: BaseChatAdapter | None = None, **fields: Any) -> GenerationRequest:
    body = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}], **fields}
    wire = ChatCompletionRequest.model_validate(body)
    return asyncio.run(chat_request(wire, served(EchoEngine(), adapter=adapter), "r"))


@pytest.mark.parametrize(("fields", "constraint"), FORMS, ids=str)
def test_each_form_is_one_constraint(fields: dict[str, Any], constraint: Constraint | None) -> None:
    chat = convert(**fields)
    wire = CompletionRequest.model_validate({"model": "echo", "prompt": "Hi", **fields})
    (text,) = text_requests(wire, served(EchoEngine()), "r")
    assert chat.sampling.constraint == text.sampling.constraint == constraint
    assert chat.extra == text.extra == {}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_object", "json_schema": {"name": "x"}}},
            "response_format.json_schema",
        ),
        ({"response_format": {"type": "text", "schema": {}}}, "response_format.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 1}}},
            "response_format.json_schema.schema",
        ),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": [1]}}, "structured_outputs.choice[0]"),
        ({"structured_outputs": {"json": 1}}, "structured_outputs.json"),
        ({"guided_choice": "a"}, "guided_choice"),
        ({"grammar": 1}, "grammar"),
        ({"grammar": "g", "guided_regex": "a"}, "guided_regex"),
        ({"grammar": "g", "response_format": {"type": "json_object"}}, "grammar"),
        ({"typical_p": 0}, "typical_p"),
        ({"typical_p": 1.1}, "typical_p"),
    ],
    ids=str,
)
def test_the_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError) as caught:
        convert(**fields)
    assert invalid_body(caught.value).detail.param == param


def test_what_nobody_knows_is_left_for_an_engine_to_refuse() -> None:
    fields: dict[str, Any] = {
        "response_format": {"type": "text", "style": "terse"},
        "structured_outputs": {"structural_tag": "{}", "backend": None},
    }
    assert convert(**fields).extra == {
        "response_format": "terse",
        "structured_outputs.structural_tag": "{}",
    }


def test_typical_p_is_passed_on() -> None:
    assert convert(typical_p=0.5).sampling.typical_p == 0.5
    assert convert().sampling.typical_p == 1.0


def test_tools_that_the_constraint_would_silence_are_refused() -> None:
    asked: dict[str, Any] = {"response_format": {"type": "json_object"}, "tools": [TOOL]}
    with pytest.raises(UnsupportedParameter, match="together with tools") as caught:
        convert(Written(), **asked)
    assert caught.value.param == "response_format"
    convert(Written(), tool_choice="none", **asked)
    # An engine that is given the messages forms its own prompt, and its own judgement.
    convert(BaseChatAdapter(), **asked)
