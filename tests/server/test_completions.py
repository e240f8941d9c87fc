"""/v1/completions on the wire."""

from typing import Any

from tests.serving import post
from tests.sse import chunks


def complete(url: str, prompt: Any = "one two three", **fields: Any) -> Any:
    return post(f"{url}/v1/completions", {"model": "echo", "prompt": prompt, **fields})


def test_a_whole_completion(url: str) -> None:
    body = complete(url).json()
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["choices"] == [
        {"index": 0, "text": "one two three", "finish_reason": "stop", "logprobs": None}
    ]


def test_a_streamed_completion_is_the_same_text(url: str) -> None:
    parsed = chunks(complete(url, stream=True, stream_options={"include_usage": True}).content)
    assert "".join(c["text"] for p in parsed for c in p["choices"]) == "one two three"
    assert parsed[-1]["choices"] == []
    assert parsed[-1]["usage"]["total_tokens"] > 0
    finished = [c["finish_reason"] for p in parsed for c in p["choices"] if c["finish_reason"]]
    assert finished == ["stop"]


def test_several_prompts_are_several_choices_with_one_usage(url: str) -> None:
    body = complete(url, ["one", "two", "three"], n=2).json()
    texts = [(c["index"], c["text"]) for c in body["choices"]]
    assert texts == [(0, "one"), (1, "one"), (2, "two"), (3, "two"), (4, "three"), (5, "three")]
    assert body["usage"]["prompt_tokens"] == 3


def test_several_prompts_streamed(url: str) -> None:
    parsed = chunks(complete(url, ["one", "two"], stream=True).content)
    texts = {0: "", 1: ""}
    for chunk in parsed:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == {0: "one", 1: "two"}


def test_token_ids_are_a_prompt(url: str) -> None:
    assert complete(url, [1, 2]).status_code == 200


def test_echo_and_suffix_are_refused_where_not_honoured(url: str) -> None:
    for field in ({"echo": True}, {"suffix": "x"}, {"best_of": 3}):
        reply = complete(url, **field)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == next(iter(field))


def test_the_first_error_of_several_prompts_ends_all(url: str) -> None:
    reply = complete(url, ["x", "y"], stream=True, logit_bias={"1": 1})
    assert reply.status_code == 400
