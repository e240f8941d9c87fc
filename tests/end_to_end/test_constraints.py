"""Constrained answers of the built-in model over a real socket, asked for by real clients."""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any, Literal

import httpx2
import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel, Field

from tests.serving import Program, post

MODEL = "parlm-tiny"
ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Who are you?"}]
TOOL: ChatCompletionToolParam = {"type": "function", "function": {"name": "f", "parameters": {}}}


class Mood(Enum):
    GLAD = "glad"
    SAD = "sad"


class Place(BaseModel):
    street: str = Field(max_length=10)
    zip: str = Field(pattern=r"^[0-9]{5}$")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    is_good: bool


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=130)
    score: float
    mood: Mood
    home: Place | None
    pets: list[Cat | Dog] = Field(max_length=2)


def refused(client: openai.OpenAI, **fields: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(messages=ASK, **({"model": MODEL} | fields))
    return caught.value


def test_parse_gives_the_model_class(client: openai.OpenAI) -> None:
    n_parsed = 0
    for seed in range(12):
        try:
            answer = client.chat.completions.parse(
                model=MODEL, messages=ASK, response_format=Person, temperature=1, seed=seed
            )
        except openai.LengthFinishReasonError:
            continue
        assert isinstance(answer.choices[0].message.parsed, Person)
        n_parsed += 1
    assert n_parsed >= 10


def test_a_streamed_answer_is_the_whole_one_and_validates(client: openai.OpenAI) -> None:
    schema = Person.model_json_schema()
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": ASK,
        "temperature": 1,
        "seed": 3,
        "n": 2,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": schema, "strict": False},
        },
    }
    whole = client.chat.completions.create(**asked)
    with client.chat.completions.stream(**asked) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion()
    for one, other in zip(whole.choices, streamed.choices, strict=True):
        assert one.message.content == other.message.content
        if one.finish_reason == "stop":
            jsonschema.validate(json.loads(one.message.content or ""), schema)


def test_any_object(client: openai.OpenAI) -> None:
    for seed in range(5):
        answer = client.chat.completions.create(
            model=MODEL,
            messages=ASK,
            temperature=1,
            seed=seed,
            max_tokens=200,
            response_format={"type": "json_object"},
        )
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


@pytest.mark.parametrize(
    ("extra", "pattern"),
    [
        ({"structured_outputs": {"regex": r"\d{3}-[a-f]{2}"}}, r"\d{3}-[a-f]{2}"),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
        ({"structured_outputs": {"json": {"enum": [1, "x"]}}}, '1|"x"'),
        ({"structured_outputs": {"grammar": 'root ::= "(" root ")" | "x"'}}, r"\(*x\)*"),
        ({"grammar": "root ::= [ab]{3}"}, "[ab]{3}"),
        ({"guided_choice": ["a", "b"]}, "a|b"),
        ({"guided_regex": "[0-9]"}, "[0-9]"),
        ({"guided_json": {"type": "null"}}, "null"),
        ({"guided_grammar": 'root ::= "y"+ "!"'}, "y+!"),
    ],
    ids=str,
)
def test_the_extensions_of_vllm_and_llama_server(
    client: openai.OpenAI, extra: dict[str, Any], pattern: str
) -> None:
    chat = client.chat.completions.create(
        model=MODEL, messages=ASK, temperature=1, seed=1, extra_body=extra
    )
    assert re.fullmatch(pattern, chat.choices[0].message.content or "")
    text = client.completions.create(model=MODEL, prompt="x", max_tokens=40, extra_body=extra)
    if text.choices[0].finish_reason == "stop":
        assert re.fullmatch(pattern, text.choices[0].text)


def test_langchain_gets_its_structure(parlm: Program) -> None:
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    llm = ChatOpenAI(
        base_url=parlm.base_url, api_key=SecretStr("unused"), model=MODEL, temperature=0
    )
    place = llm.with_structured_output(Place, method="json_schema").invoke("Where do you live?")
    assert isinstance(place, Place)


@pytest.mark.parametrize("stream", [False, True])
def test_what_does_not_compile_is_named(client: openai.OpenAI, stream: bool) -> None:
    schema = {"type": "object", "not": {"required": ["secret-name"]}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    error = refused(client, response_format=form, stream=stream)
    assert error.param == "response_format.json_schema.schema"
    assert error.code == "invalid_value"
    assert 'Unimplemented keys: ["not"]' in error.message
    error = refused(client, stream=stream, extra_body={"grammar": "root ::= secret-name"})
    assert error.param == "grammar"
    assert "secret-name" not in error.message


def test_tools_and_a_form_exclude_each_other(client: openai.OpenAI) -> None:
    form = {"type": "json_object"}
    error = refused(client, response_format=form, tools=[TOOL])
    assert (error.param, error.code) == ("response_format", "unsupported_parameter")
    client.chat.completions.create(
        model=MODEL,
        messages=ASK,
        tools=[TOOL],
        tool_choice="none",
        response_format={"type": "json_object"},
        max_tokens=5,
    )


def test_an_engine_that_cannot_says_which_field(client: openai.OpenAI) -> None:
    error = refused(client, model="echo", extra_body={"structured_outputs": {"regex": "a"}})
    assert (error.param, error.code) == ("structured_outputs.regex", "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": -0.1}, "min_p"),
        ({"typical_p": 0}, "typical_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"2048": 1}}, "logit_bias"),
        ({"seed": "1"}, "seed"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop_token_ids": [2048]}, "stop_token_ids"),
        ({"n": 0}, "n"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"ignore_eos": 1}, "ignore_eos"),
    ],
    ids=str,
)
def test_a_sampling_field_out_of_range_is_named(
    parlm: Program, fields: dict[str, Any], param: str
) -> None:
    body = {"model": MODEL, "messages": ASK, **fields}
    reply: httpx2.Response = post(f"{parlm.base_url}/chat/completions", body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


def test_every_sampling_field_reaches_the_engine(client: openai.OpenAI) -> None:
    def tokens(**fields: Any) -> list[str]:
        answer = client.chat.completions.create(
            model=MODEL, messages=ASK, logprobs=True, top_logprobs=20, **fields
        )
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.content is not None
        assert all(len(token.top_logprobs) == 20 for token in logprobs.content)
        return [token.token for token in logprobs.content]

    plain: dict[str, Any] = {"temperature": 2, "seed": 2, "max_tokens": 24}
    drawn = tokens(**plain)
    assert tokens(**plain) == drawn
    changes: list[dict[str, Any]] = [
        {"temperature": 0.1},
        {"top_p": 0.1},
        {"seed": 3},
        {"presence_penalty": 2},
        {"frequency_penalty": 2},
        {"extra_body": {"top_k": 2}},
        {"extra_body": {"min_p": 0.9}},
        {"extra_body": {"typical_p": 0.01}},
        {"extra_body": {"repetition_penalty": 2.0}},
    ]
    assert [change for change in changes if tokens(**(plain | change)) == drawn] == []
    greedy = {"temperature": 0, "max_tokens": 40}
    length = len(tokens(**greedy))
    assert length < 40
    assert len(tokens(**greedy, extra_body={"ignore_eos": True})) == 40
    assert len(tokens(**greedy, extra_body={"min_tokens": length + 3})) > length + 2
