"""The thin client against a server that answers well, half, and wrongly."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from server.cli.client import (
    BrokenStream,
    ChatParams,
    Chunk,
    Client,
    ClientError,
    ModelInfo,
    NoServer,
    ServerError,
    is_loopback,
)
from tests.server.cli.scripted import (
    END,
    USAGE,
    ScriptedServer,
    chunk,
    event,
    gated,
    reply_json,
    send_raw,
    stream,
)

TINY = ChatParams("tiny")
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    with Client(server.url, "secret") as client:
        yield client


def answer(client: Client, params: ChatParams = TINY) -> list[Chunk]:
    return list(client.chat(HELLO, params))


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def test_an_answer_streams_with_its_finish_reason_and_usage(client: Client) -> None:
    chunks = answer(client)
    assert text_of(chunks) == "You said: hello"
    assert [c.finish_reason for c in chunks if c.finish_reason] == ["stop"]
    assert [c.usage for c in chunks if c.usage] == [USAGE]


def test_what_is_sent(client: Client, server: ScriptedServer) -> None:
    answer(client, ChatParams("other", temperature=0.0, max_tokens=7))
    answer(client)
    first, second = (request.body for request in server.chats)
    assert first == {
        "model": "other",
        "messages": HELLO,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "max_tokens": 7,
    }
    assert {"temperature", "max_tokens"}.isdisjoint(second)
    headers = server.chats[0].headers
    assert headers["authorization"] == "Bearer secret"
    assert headers["accept-encoding"] == "identity"


def test_pieces_come_as_they_are_sent(client: Client, server: ScriptedServer) -> None:
    server.answers.append(gated("one", "two"))
    with closing(client.chat(HELLO, TINY)) as chunks:
        assert next(chunks).text == "one"  # the second is not sent yet
        server.release()
        assert next(chunks).text == "two"


def test_closing_the_iterator_aborts_at_the_server(client: Client, server: ScriptedServer) -> None:
    server.answers.append(gated("one", "two"))
    with closing(client.chat(HELLO, TINY)) as chunks:
        next(chunks)
    assert server.has_lost_client.wait(5)


FINISH = event(chunk(finish="stop"))
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param([], id="nothing"),
        pytest.param([event(chunk("a"))], id="neither"),
        pytest.param([event(chunk("a")), FINISH], id="no DONE"),
        pytest.param([event(chunk("a")), DONE], id="no finish reason"),
        pytest.param([event(chunk("a")), FINISH, DONE[:-2]], id="cut in DONE"),
    ],
)
def test_an_answer_that_is_not_whole_is_an_error(
    client: Client, server: ScriptedServer, blocks: list[bytes]
) -> None:
    server.answers.append(send_raw(*blocks))
    with pytest.raises(BrokenStream, match="the stream broke off"):
        answer(client)


@pytest.mark.parametrize("data", [b"data: {cut\n\n", b"data: [1]\n\n", b"data: \n\n"])
def test_an_event_that_is_no_chunk_is_an_error(
    client: Client, server: ScriptedServer, data: bytes
) -> None:
    server.answers.append(send_raw(data, *END))
    with pytest.raises(BrokenStream, match="the server sent an event that is not"):
        answer(client)


def test_an_endless_line_is_an_error(client: Client, server: ScriptedServer) -> None:
    server.answers.append(send_raw(b"data: " + b"x" * 5_000_000))
    with pytest.raises(BrokenStream, match="larger than"):
        answer(client)


def test_an_error_within_the_stream(client: Client, server: ScriptedServer) -> None:
    error = {"message": "The engine\nstopped.", "type": "server_error", "code": "engine_crashed"}
    server.answers.append(send_raw(event(chunk("a")), event({"error": error})))
    with pytest.raises(ServerError) as caught:
        answer(client)
    assert (caught.value.status, caught.value.code) == (None, "engine_crashed")
    assert str(caught.value) == "engine_crashed: The engine stopped."


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ({"error": {"message": "Not here.", "code": "model_not_found"}}, "model_not_found: Not"),
        ({"error": {"message": "No.", "type": "bad", "code": None}}, "404 bad: No."),
        ({"error": {"message": "No.", "code": 404}}, "404: No."),
        ({"error": "just text"}, "404: just text"),
        ({"detail": "Not Found"}, "404: Not Found"),
        ({"error": {}}, "404: Status"),
        ("text", "404: Status"),
    ],
)
def test_an_error_reply(client: Client, server: ScriptedServer, reply: object, told: str) -> None:
    server.answers.append(reply_json(reply, status=404))
    with pytest.raises(ServerError) as caught:
        answer(client)
    assert caught.value.status == 404
    assert told in str(caught.value)


def test_a_reply_that_is_no_stream_is_an_error(client: Client, server: ScriptedServer) -> None:
    server.answers.append(send_raw(b"<html>", kind="text/html"))
    with pytest.raises(ServerError, match="text/html, not a stream"):
        answer(client)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{"delta": None}]},
        {"choices": [{"index": 0, "delta": "text"}]},
        {"choices": [{"index": 0, "delta": {"content": None, "role": "assistant"}}]},
        {"choices": [{"index": 1, "delta": {"content": "of another choice"}}]},
    ],
)
def test_chunks_without_text_are_accepted(
    client: Client, server: ScriptedServer, data: object
) -> None:
    server.answers.append(send_raw(event(data), *END))
    assert text_of(answer(client)) == ""


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart(client: Client, server: ScriptedServer, field: str) -> None:
    server.answers.append(send_raw(event({"choices": [{"delta": {field: "hm"}}]}), *END))
    chunks = answer(client)
    assert (chunks[0].reasoning, text_of(chunks)) == ("hm", "")


def test_line_separators_of_unicode_are_text(client: Client, server: ScriptedServer) -> None:
    data = json.dumps(chunk("a\u2028b\u0085c"), ensure_ascii=False).encode()
    server.answers.append(send_raw(b"data: " + data + b"\r\n\r\n", *END))
    assert text_of(answer(client)) == "a\u2028b\u0085c"


def test_a_lone_surrogate_becomes_a_replacement_character(
    client: Client, server: ScriptedServer
) -> None:
    server.answers.append(stream("a\ud800b"))
    assert text_of(answer(client)) == "a\ufffdb"


def test_models(client: Client, server: ScriptedServer) -> None:
    server.models = {"tiny": {}, "org/big": {}}
    assert [info.id for info in client.models()] == ["tiny", "org/big"]
    assert client.models()[0] == ModelInfo("tiny", owned_by="test")


def test_a_model_with_all_that_parlm_tells(client: Client, server: ScriptedServer) -> None:
    extra = {"engine": "llama_cpp", "ready": True, "context_length": 512, "aliases": ["a"]}
    server.models["org/big"] = {"parlm": extra | {"unknown": 1}, "owned_by": "parlm"}
    assert client.model("org/big") == ModelInfo(
        "org/big", "parlm", engine="llama_cpp", ready=True, context_length=512, aliases=("a",)
    )
    assert server.requests[-1].path == "/v1/models/org/big"


@pytest.mark.parametrize("listed", [{"data": None}, [1], "text"])
def test_a_list_of_models_that_is_none(
    client: Client, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, listed: object
) -> None:
    monkeypatch.setattr(server, "_reply_to", lambda _: reply_json(listed))
    with pytest.raises(ServerError, match="/v1/models"):
        client.models()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_no_server_on_this_machine(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/v1"
    with Client(url) as client, pytest.raises(NoServer) as caught:
        client.models()
    assert str(caught.value) == f"no server at {url}: start one with `make serve` or `parlm serve`"


def test_no_server_elsewhere() -> None:
    with Client("http://no-such-host.invalid/v1") as client, pytest.raises(NoServer) as caught:
        answer(client)
    assert "parlm serve" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://x/v1", "http://[::1/v1", "http://x:port/v1"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ClientError), Client(url) as client:
        client.models()


def test_a_server_that_hangs_up(client: Client, server: ScriptedServer) -> None:
    async def hang_up(_: object) -> None:
        return

    server.answers.append(hang_up)
    with pytest.raises(BrokenStream):
        answer(client)


def test_a_proxy_from_the_environment_is_not_used_on_loopback(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port}")
    with Client(server.url) as client:
        assert client.models()


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_loopback_hosts(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local
