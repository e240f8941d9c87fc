"""The wire requests: which field is named when one is wrong."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from server.errors import ApiError, invalid_body
from server.protocol import ChatCompletionRequest, CompletionRequest


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


def refusal(model: type[BaseModel], body: dict[str, Any]) -> ApiError:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    return invalid_body(caught.value)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"temperature": float("nan")}, "temperature", "invalid_value"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 2.5}, "n", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 2**70}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"stop": 7}, "stop", "invalid_type"),
        ({"seed": "x"}, "seed", "invalid_type"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"top_logprobs": 5}, "top_logprobs", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": [{"role": "wizard", "content": ""}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", None),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].name", None),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", None),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    ],
)
def test_the_wrong_field_is_named(fields: dict[str, Any], param: str, code: str | None) -> None:
    error = refusal(ChatCompletionRequest, chat(**fields))
    assert error.status == 400
    assert error.detail.param == param
    assert code is None or error.detail.code == code


def test_a_missing_field_is_named() -> None:
    assert refusal(ChatCompletionRequest, {"model": "m"}).detail.param == "messages"
    assert refusal(CompletionRequest, {"prompt": "x"}).detail.param == "model"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{}] * 4096},
        {"messages": [{"role": "user", "content": [{}] * 4096}] * 10},
        {"messages": [{"role": "user", "content": "x", "tool_calls": [{}] * 128}] * 10},
        {"logit_bias": {str(i): "x" for i in range(2000)}},
        {"metadata": {str(i): 1 for i in range(2000)}},
        {"prompt": [-1] * 5000},
        {"prompt": [["x"] * 5000] * 5},
        {"prompt": ["x", *[1] * 5000]},
        {"prompt": [None] * 5000},
    ],
)
def test_many_mistakes_are_not_many_errors(fields: dict[str, Any]) -> None:
    model = CompletionRequest if "prompt" in fields else ChatCompletionRequest
    with pytest.raises(ValidationError) as caught:
        model.model_validate(chat(**fields))
    assert caught.value.error_count() < 10


def test_nothing_the_client_sent_is_repeated() -> None:
    body = chat(temperature="SECRET", messages=[{"role": "SECRET", "content": "x"}])
    assert b"SECRET" not in refusal(ChatCompletionRequest, body).body


def test_null_means_not_given() -> None:
    nulls = dict.fromkeys(ChatCompletionRequest.model_fields) | chat()
    assert ChatCompletionRequest.model_validate(nulls).temperature is None


@pytest.mark.parametrize("prompt", ["x", ["x", "y"], [1, 2], [[1], [2, 3]]])
def test_the_four_forms_of_a_prompt(prompt: object) -> None:
    wire = CompletionRequest.model_validate({"model": "m", "prompt": prompt})
    assert wire.prompt == prompt


@pytest.mark.parametrize("prompt", [None, [], [[]], [-1], ["x", 1], {}, [1.5], 7])
def test_other_prompts_are_refused(prompt: object) -> None:
    error = refusal(CompletionRequest, {"model": "m", "prompt": prompt})
    assert (error.detail.param or "").startswith("prompt")
