"""Bad input against the whole program: a 4xx with the envelope, nothing repeated, nothing hurt."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from server.protocol import ChatCompletionRequest, CompletionRequest
from tests.serving import Program

CANARY = "Xq7CanaryZ"
VALUES: list[Any] = [
    -1, 0, 0.5, 1, 2, 3, 101, 2**31, 2**63, -(2**63), 2**70, 1e308, True, False,
    "1", CANARY, "", [], [CANARY], {}, {CANARY: CANARY}, [[[]]], [None], [-1], [2**40],
]  # fmt: skip
CHAT = {"model": "parlm-tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
TEXT = {"model": "parlm-tiny", "prompt": "Hi", "max_tokens": 1}


@pytest.fixture(scope="module")
def http(parlm: Program) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=parlm.base_url, timeout=60, trust_env=False) as client:
        yield client


def send(http: httpx2.Client, path: str, content: bytes) -> httpx2.Response:
    headers = {"content-type": "application/json"}
    return http.post(path, content=content, headers=headers)


def assert_refused(reply: httpx2.Response) -> None:
    assert 400 <= reply.status_code < 500, (reply.status_code, reply.text[:300])
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert isinstance(error["code"], str)
    assert CANARY not in reply.text


@pytest.mark.parametrize(
    ("path", "base", "field"),
    [("/chat/completions", CHAT, field) for field in ChatCompletionRequest.model_fields]
    + [("/completions", TEXT, field) for field in CompletionRequest.model_fields],
)
def test_every_field_with_every_odd_value(
    http: httpx2.Client, path: str, base: dict[str, Any], field: str
) -> None:
    for value in VALUES:
        if field == "stream" and value is True:
            continue
        reply = send(http, path, json.dumps(base | {field: value}).encode())
        if reply.status_code != 200:
            assert_refused(reply)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": CANARY, "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": 7}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": CANARY}}]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "tool", "content": "x"}],
        [{"role": "assistant", "tool_calls": [{"id": "a"}]}],
        [CANARY],
        [[]],
        {},
        None,
    ],
)
def test_odd_messages(http: httpx2.Client, messages: Any) -> None:
    assert_refused(
        send(http, "/chat/completions", json.dumps(CHAT | {"messages": messages}).encode())
    )


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"model": "parlm-tiny", "temperature": NaN}',
        b'{"model": "parlm-tiny", "temperature": 1e999}',
        b'{"model": "parlm-tiny", "prompt": "\\ud800"}',
        b'{"model": "parlm-tiny", "messages": [{"role": "\\ud800", "content": "x"}]}',
        b'{"model": "parlm-tiny", "prompt": "\xff\xfe"}',
        b'{"model": "a", "model": "b"}',
        b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"messages":' + b'{"a":' * 100_000,
        b'{"seed": ' + b"9" * 100_000 + b"}",
    ],
    ids=lambda content: content[:24].decode("latin-1"),
)
def test_bodies_that_are_no_request(http: httpx2.Client, path: str, content: bytes) -> None:
    assert_refused(send(http, path, content))


def test_a_body_of_64_mb(http: httpx2.Client) -> None:
    assert_refused(send(http, "/chat/completions", b'{"a": "' + b"x" * 2**26 + b'"}'))


def test_special_tokens_in_a_message_stay_text(http: httpx2.Client) -> None:
    def prompt_tokens(content: str) -> int:
        body = CHAT | {"messages": [{"role": "user", "content": content}]}
        usage = send(http, "/chat/completions", json.dumps(body).encode()).json()["usage"]
        count: int = usage["prompt_tokens"]
        return count

    plain, special = prompt_tokens("a"), prompt_tokens("<|im_end|>")
    assert special > plain + 3


def test_the_server_is_well_after_all_this(http: httpx2.Client, parlm: Program) -> None:
    assert len(parlm.engine_pids()) == 1
    assert send(http, "/chat/completions", json.dumps(CHAT).encode()).status_code == 200
    assert not [line for line in parlm.errors if "Traceback" in line]
