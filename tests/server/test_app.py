"""What every request passes, and the smaller routes."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from engines.echo import EchoEngine
from engines.types import Health
from server.app import create_app
from server.body import LARGE
from server.middleware import PUBLIC_PATHS
from server.models import ModelTable
from server.settings import Settings
from tests.serving import app_server, post, served, wait_until

KEY = "sesame-\u00e9"


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    with app_server([served(EchoEngine())], api_keys=f"other,{KEY}") as root:
        yield root


def get(url: str, **headers: str) -> httpx2.Response:
    return httpx2.get(url, headers=headers, trust_env=False)


def raw(url: str, request: bytes) -> bytes:
    """Send bytes as they are; return the whole reply."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        reply = b""
        while data := connection.recv(65536):
            reply += data
    return reply


def test_models_are_listed(url: str) -> None:
    body = get(f"{url}/v1/models").json()
    assert body["object"] == "list"
    assert {m["id"] for m in body["data"]} >= {"echo", "org/echo-2"}
    assert all(set(m) == {"id", "created", "object", "owned_by"} for m in body["data"])


def test_a_model_is_shown_also_with_a_slash_in_its_name(url: str) -> None:
    body = get(f"{url}/v1/models/org/echo-2").json()
    assert body["id"] == "org/echo-2"
    assert body["parlm"]["engine"] == "echo"
    assert body["parlm"]["reason"]


def test_an_alias_finds_its_model(url: str) -> None:
    assert get(f"{url}/v1/models/gpt-3.5-turbo").json()["id"] == "echo"


@pytest.mark.parametrize("path", ["/v1/models/nope", "/v1/models/../../etc/passwd"])
def test_an_unknown_model_is_404(url: str, path: str) -> None:
    reply = get(url + path)
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] in ("model_not_found", "unknown_url")


def test_an_unknown_model_in_a_body_is_404(url: str) -> None:
    for path, rest in (
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("completions", {"prompt": "x"}),
    ):
        reply = post(f"{url}/v1/{path}", {"model": "nope", **rest})
        assert reply.status_code == 404
        assert reply.json()["error"]["param"] == "model"


@pytest.mark.parametrize("path", ["/v1/models/", "/models", "/health/", "/v1/models/echo/"])
def test_a_trailing_slash_or_a_missing_prefix_is_forgiven(url: str, path: str) -> None:
    assert get(url + path).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health(url: str, locked: str, path: str) -> None:
    assert get(url + path).json() == {"status": "ok"}
    assert get(locked + path).status_code == 200


def test_every_reply_has_its_identity(url: str) -> None:
    for path in ("/v1/models", "/nowhere", "/health"):
        headers = get(url + path, **{"x-request-id": "theirs"}).headers
        assert headers["x-request-id"].startswith("req_")
        assert int(headers["openai-processing-ms"]) >= 0
        assert "openai-version" in headers
        assert "server" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/chat/completions", 405), ("DELETE", "/health", 405)],
)
def test_starlettes_own_errors_have_the_envelope(
    url: str, method: str, path: str, status: int
) -> None:
    reply = httpx2.request(method, url + path, trust_env=False)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer"},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer other other"},
    ],
)
def test_without_a_right_key_there_is_nothing(locked: str, headers: dict[str, str]) -> None:
    given = [(k.encode(), v.encode()) for k, v in headers.items()]
    reply = httpx2.get(f"{locked}/v1/models", headers=given, trust_env=False)
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "invalid_api_key"
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("value", [b"Bearer other", b"bearer other", f"Bearer {KEY}".encode()])
def test_a_right_key_opens(locked: str, value: bytes) -> None:
    reply = httpx2.get(f"{locked}/v1/models", headers=[(b"authorization", value)], trust_env=False)
    assert reply.status_code == 200


def test_two_keys_at_once_are_none(locked: str) -> None:
    headers = [(b"authorization", b"Bearer other"), (b"authorization", b"Bearer other")]
    assert httpx2.get(f"{locked}/v1/models", headers=headers, trust_env=False).status_code == 401


def test_only_the_public_list_is_open() -> None:
    settings = Settings(_env_file=None, api_keys="k")
    app = create_app(ModelTable([served(EchoEngine())]), settings)
    paths = set(app.openapi()["paths"])
    assert paths >= PUBLIC_PATHS
    for path in paths - PUBLIC_PATHS | {"/v1/models/x", "//health", "/health/live/x", "/Health"}:
        assert _status(app, path) == 401, path


def test_the_description_of_the_api_refers_to_nothing_it_lacks(url: str) -> None:
    text = get(f"{url}/openapi.json").text
    schemas = json.loads(text)["components"]["schemas"]
    assert "ChatCompletionRequest" in schemas
    assert {ref.rpartition("/")[2] for ref in re.findall(r'"\$ref": ?"([^"]+)"', text)} <= set(
        schemas
    )


def test_what_an_engine_says_of_itself_beyond_its_state_is_the_operators() -> None:
    class Restarting(EchoEngine):
        def health(self) -> Health:
            return Health(False, "restarting: cannot read /srv/secret.gguf")

    with app_server([served(Restarting())]) as root:
        shown = get(f"{root}/v1/models/echo").json()["parlm"]
    assert shown["detail"] == "restarting"


def _status(app: Any, path: str) -> int:
    """The status of a GET, straight through ASGI: no client normalises the path."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": [(b"host", b"127.0.0.1")], "scheme": "http",
        "server": ("127.0.0.1", 80), "client": None, "root_path": "", "http_version": "1.1",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize(
    "host", ["evil.test", "a/?", "a/#", "127.0.0.1@evil", "[::1", "", "localhost.evil.test"]
)
def test_a_foreign_host_is_refused(url: str, host: str) -> None:
    request = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert raw(url, request.encode()).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1234", "[::1]:8000", "LOCALHOST"])
def test_our_own_names_are_answered(url: str, host: str) -> None:
    request = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert raw(url, request.encode()).startswith(b"HTTP/1.1 200")


def test_a_body_must_be_json_by_name(url: str) -> None:
    reply = httpx2.post(
        f"{url}/v1/completions", content=b"{}", headers={"content-type": "text/plain"},
        trust_env=False,
    )  # fmt: skip
    assert reply.status_code == 415


def test_a_large_body_is_413_also_without_a_length(url: str) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    for content in (b" " * 200_000, parts()):
        reply = httpx2.post(
            f"{url}/v1/completions", content=content,
            headers={"content-type": "application/json"}, trust_env=False,
        )  # fmt: skip
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "request_too_large"


def test_a_body_large_enough_for_a_thread_is_read_the_same(url: str) -> None:
    fields: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
    padding = "x" * LARGE
    assert post(f"{url}/v1/chat/completions", fields | {"prompt_cache_key": padding}).is_success
    reply = post(f"{url}/v1/chat/completions", fields | {"n": 0, "prompt_cache_key": padding})
    assert reply.json()["error"]["param"] == "n"


def test_no_cross_origin_reader_is_let_in(url: str) -> None:
    reply = get(f"{url}/v1/models", origin="null")
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_generation(stream: bool) -> None:
    engine = EchoEngine(tokens_per_second=10)
    body = {
        "model": "echo", "stream": stream,
        "messages": [{"role": "user", "content": "word " * 200}],
    }  # fmt: skip
    with app_server([served(engine)], header_hold=0.2) as root:
        host, port = root.removeprefix("http://").split(":")
        payload = json.dumps(body).encode()
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                % len(payload)
                + payload
            )
            wait_until(lambda: engine.state.running, 5, "the request")
        wait_until(lambda: engine.state.aborted and not engine.state.running, 1, "the abort")
