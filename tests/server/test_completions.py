"""/v1/completions on the wire."""

from typing import Any

from engines.types import TokenLogprob, TopLogprob
from server.completions import TextOffsets, text_logprobs
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


def test_an_empty_suffix_asks_for_nothing(url: str) -> None:
    assert complete(url, suffix="").status_code == 200


def test_too_long_a_prompt_is_called_prompt(url: str) -> None:
    for stream in (False, True):
        reply = complete(url, [1] * 9000, stream=stream)
        assert reply.json()["error"]["code"] == "context_length_exceeded"
        assert reply.json()["error"]["param"] == "prompt"


def token(data: bytes, *top: str) -> TokenLogprob:
    likeliest = tuple(TopLogprob(name, -1.0, name.encode()) for name in top)
    return TokenLogprob(data.decode("utf-8", "replace"), -2.0, data, likeliest)


def test_offsets_of_logprobs_are_characters_also_where_tokens_are_parts_of_one() -> None:
    smile = "\U0001f600".encode()
    tokens = [token(b"a"), token(smile[:1]), token(smile[1:3]), token(smile[3:]), token(b"b")]
    whole = text_logprobs(tokens, TextOffsets()).text_offset
    assert whole == [0, 1, 1, 1, 2]
    offsets = TextOffsets()
    streamed = [text_logprobs([item], offsets).text_offset[0] for item in tokens]
    assert streamed == whole


def test_the_chosen_token_is_among_the_likeliest() -> None:
    assert text_logprobs([token(b"c", "a", "b")], TextOffsets()).top_logprobs == [
        {"a": -1.0, "b": -1.0, "c": -2.0}
    ]
    assert text_logprobs([token(b"c")], TextOffsets()).top_logprobs is None


def test_the_first_error_of_several_prompts_ends_all(url: str) -> None:
    reply = complete(url, ["x", "y"], stream=True, logit_bias={"1": 1})
    assert reply.status_code == 400
