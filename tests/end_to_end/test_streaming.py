"""For every sample prompt, the streamed text put together is the whole answer, byte for byte."""

import json
from typing import Any

import pytest

from tests.serving import ROOT, Program, post
from tests.sse import chunks, text_of

SAMPLE = ROOT / "models" / "parlm-tiny" / "heldout_sample.jsonl"
ITEMS: list[dict[str, Any]] = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
SKILLS = sorted({item["skill"] for item in ITEMS})
# Bytes that are no token of their own come one by one, so each character spans several tokens.
FORCED = "\u00e9\u5c0f\U0001f600"


def request(item: dict[str, Any], **fields: Any) -> dict[str, Any]:
    messages = [
        message | ({"tool_call_id": "call_1"} if message["role"] == "tool" else {})
        for message in item["messages"]
    ]
    body = {"model": "parlm-tiny", "messages": messages, "max_tokens": 120, **fields}
    return body | ({"tools": item["tools"]} if item.get("tools") else {})


def both(parlm: Program, body: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The choice of the whole answer, and the chunks of the streamed one."""
    url = f"{parlm.base_url}/chat/completions"
    whole = post(url, body).json()["choices"][0]
    return whole, chunks(post(url, body | {"stream": True}).content)


def assert_same(whole: dict[str, Any], streamed: list[dict[str, Any]]) -> None:
    assert text_of(streamed) == (whole["message"]["content"] or "")
    assert streamed[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert "".join(arguments(streamed)) == "".join(
        call["function"]["arguments"] for call in whole["message"].get("tool_calls", [])
    )


def arguments(streamed: list[dict[str, Any]]) -> list[str]:
    return [
        call["function"]["arguments"]
        for chunk in streamed
        for call in chunk["choices"][0]["delta"].get("tool_calls", [])
    ]


@pytest.mark.parametrize("skill", SKILLS)
def test_greedy_answers(parlm: Program, skill: str) -> None:
    for item in ITEMS:
        if item["skill"] == skill:
            assert_same(*both(parlm, request(item)))


@pytest.mark.parametrize("skill", SKILLS)
def test_sampled_answers_with_a_seed(parlm: Program, skill: str) -> None:
    items = [item for item in ITEMS if item["skill"] == skill][:8]
    for seed, item in enumerate(items):
        assert_same(*both(parlm, request(item, temperature=1.5, seed=seed)))


def test_characters_split_over_tokens(parlm: Program) -> None:
    """At a high temperature the model emits stray bytes: what a decoder must never halve."""
    seen: set[str] = set()
    for seed in range(12):
        body = request(
            {"messages": [{"role": "user", "content": f"Say: {FORCED}"}]},
            temperature=2.0,
            seed=seed,
            ignore_eos=True,
            max_tokens=200,
        )
        whole, streamed = both(parlm, body)
        assert_same(whole, streamed)
        seen.update(c for c in whole["message"]["content"] if ord(c) > 127)
    assert seen
