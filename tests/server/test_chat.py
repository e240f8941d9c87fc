"""/v1/chat/completions on the wire: shapes, streams, and how either ends."""

import json
from typing import Any

import pytest

from tests.serving import post
from tests.sse import chunks, frames, text_of

MULTILINGUAL = "Zoë says 小明 paid 5 € \U0001f600 and \U0001f468\u200d\U0001f469 left"
TEXTS = ["one two", MULTILINGUAL, " leading", "line\nline\n", "a\u2028b"]


def chat(url: str, content: str = "one two three", model: str = "echo", **fields: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": content}], **fields}
    return post(f"{url}/v1/chat/completions", body)


def test_a_whole_answer_has_every_required_key(url: str) -> None:
    body = chat(url).json()
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert isinstance(body["created"], int)
    assert body["model"] == "echo"
    assert body["system_fingerprint"] == "fp_test"
    (choice,) = body["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "one two three",
        "refusal": None,
    }
    assert choice["index"] == 0
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"] is None
    usage = body["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


def test_a_stream_has_every_required_key(url: str) -> None:
    reply = chat(url, stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "no-cache" in reply.headers["cache-control"]
    parsed = chunks(reply.content)
    assert len({(c["id"], c["created"], c["model"]) for c in parsed}) == 1
    assert all(c["object"] == "chat.completion.chunk" for c in parsed)
    assert all("usage" not in c for c in parsed)
    first, *middle, last = [c["choices"][0] for c in parsed]
    assert first["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert first["finish_reason"] is None
    assert all(set(c["delta"]) == {"content"} and c["finish_reason"] is None for c in middle)
    assert last["delta"] == {}
    assert last["finish_reason"] == "stop"


def test_usage_comes_last_and_only_when_asked(url: str) -> None:
    parsed = chunks(chat(url, stream=True, stream_options={"include_usage": True}).content)
    assert all(c["usage"] is None for c in parsed[:-1])
    assert parsed[-1]["choices"] == []
    assert parsed[-1]["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("content", TEXTS)
def test_the_stream_put_together_is_the_whole_answer(url: str, content: str) -> None:
    whole = chat(url, content).json()["choices"][0]
    parsed = chunks(chat(url, content, stream=True).content)
    assert text_of(parsed) == whole["message"]["content"]
    assert parsed[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]


def test_max_tokens_ends_with_length(url: str) -> None:
    for limit in ({"max_tokens": 2}, {"max_completion_tokens": 2}):
        choice = chat(url, "one two three", "echo", **limit).json()["choices"][0]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["content"] == "one two"


def test_a_stop_string_is_not_part_of_the_answer(url: str) -> None:
    choice = chat(url, stop=[" three"]).json()["choices"][0]
    assert choice["message"]["content"] == "one two"
    assert choice["finish_reason"] == "stop"


def test_n_choices_each_end_once(url: str) -> None:
    assert [c["index"] for c in chat(url, n=3).json()["choices"]] == [0, 1, 2]
    parsed = chunks(chat(url, n=3, stream=True).content)
    finished = [c["index"] for p in parsed for c in p["choices"] if c["finish_reason"]]
    assert sorted(finished) == [0, 1, 2]
    assert {text_of(parsed, i) for i in range(3)} == {"one two three"}


def test_content_in_parts_is_joined(url: str) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    body = {"model": "echo", "messages": [{"role": "user", "content": parts}]}
    reply = post(f"{url}/v1/chat/completions", body).json()
    assert reply["choices"][0]["message"]["content"] == "one\ntwo"


def test_every_role_is_taken(url: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "a"},
        {"role": "system", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "d"},
        {"role": "user", "content": "e"},
    ]
    reply = post(f"{url}/v1/chat/completions", {"model": "echo", "messages": messages})
    assert reply.status_code == 200


def test_fields_that_ask_for_nothing_different_are_accepted(url: str) -> None:
    reply = chat(
        url,
        store=True,
        metadata={"a": "b"},
        user="u",
        service_tier="auto",
        safety_identifier="s",
        prompt_cache_key="k",
        modalities=["text"],
        verbosity="medium",
        parallel_tool_calls=True,
        response_format={"type": "text"},
        reasoning_effort=None,
        top_logprobs=0,
        stream=True,
        stream_options={"include_usage": None, "include_obfuscation": False},
    )
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs.regex"),
        ({"grammar": "g"}, "grammar"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"verbosity": "low"}, "verbosity"),
        ({"guided_json": {}}, "guided_json"),
        ({"guided_whatever": {}}, "guided_whatever"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
    ],
)
def test_what_the_engine_cannot_honour_is_refused_by_name(
    url: str, fields: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        reply = chat(url, stream=stream, **fields)
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "unsupported_parameter"
        assert reply.json()["error"]["param"] == param


def test_an_unknown_stream_option_is_refused_by_name(url: str) -> None:
    reply = chat(url, stream=True, stream_options={"continuous_usage_stats": True})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "stream_options.continuous_usage_stats"


def test_a_field_whose_name_is_no_name_is_refused_without_repeating_it(url: str) -> None:
    fields: dict[str, Any] = {"my password is sesame": 1}
    reply = chat(url, **fields)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] is None
    assert "sesame" not in reply.text


def test_an_error_before_the_first_token_has_its_status(url: str) -> None:
    for stream in (False, True):
        reply = chat(url, model="breaks-at-once", stream=stream)
        assert reply.status_code == 500
        assert reply.json()["error"]["type"] == "server_error"


def test_an_error_in_a_stream_is_an_event_without_done(url: str) -> None:
    data = frames(chat(url, "a b c d e f", model="breaks", stream=True).content)
    assert json.loads(data[-1])["error"]["code"] == "engine_crashed"
    assert "[DONE]" not in data
    assert not any(c["finish_reason"] for d in data[:-1] for c in json.loads(d)["choices"])


def test_an_error_in_a_whole_answer_has_its_status(url: str) -> None:
    assert chat(url, "a b c d e f", model="breaks").status_code == 500


def test_headers_do_not_wait_longer_than_header_hold(url: str) -> None:
    reply = chat(url, model="late", stream=True)
    assert text_of(chunks(reply.content)) == "one two three"
    assert int(reply.headers["openai-processing-ms"]) < 1200
