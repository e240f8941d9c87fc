"""The connection guard under raw sockets, in a real uvicorn with short deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from server.guard import GuardLimits, guarded_protocol

LIMITS = GuardLimits(
    header_seconds=0.5,
    body_seconds=0.5,
    body_bytes_per_second=1e5,
    linger_seconds=0.5,
    unread_seconds=0.5,
)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
STREAM = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer with the size of the body; /stream takes 0.75 s, /early does not read the body.

    /flood sends 64 MiB.
    """
    if scope["type"] != "http":
        return
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        size += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
    for number in range(15 if scope["path"] == "/stream" else 0):
        await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"%d;" % number, "more_body": True})
    for _ in range(1024 if scope["path"] == "/flood" else 0):
        await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
    await send({"type": "http.response.body", "body": b"size=%d" % size, "more_body": False})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    config = uvicorn.Config(
        app, http=guarded_protocol(LIMITS), ws="none", lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()
        server.should_exit = True
        thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.fixture
def connection(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=10) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(65536):
        received += data
    return received


def read_until(client: socket.socket, end: bytes) -> bytes:
    received = b""
    while end not in received:
        data = client.recv(65536)
        assert data, received
        received += data
    return received


def error_of(reply: bytes, status: int) -> dict[str, Any]:
    """The envelope of the last reply in `reply`, which must have `status` and close."""
    start = reply.rindex(b"HTTP/1.1 ")
    head, _, body = reply[start:].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"connection: close" in head
    assert b"content-length: %d\r\n" % len(body) in head
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


@pytest.mark.parametrize("start", [b"", b"GE", b"GET / HTTP/1.1\r\nHost: x\r\nA: b", b"\r\n"])
def test_a_header_that_stays_incomplete_gets_408(connection: socket.socket, start: bytes) -> None:
    begin = time.monotonic()
    connection.sendall(start)
    error = error_of(read_all(connection), 408)
    assert (error["code"], error["param"]) == ("request_timeout", None)
    assert "header" in error["message"]
    assert time.monotonic() - begin >= LIMITS.header_seconds - 0.05


def trickle(client: socket.socket, data: bytes, seconds: float) -> bool:
    """Send byte by byte until the other side refuses; False if all of `data` went out."""
    client.setblocking(False)
    for byte in data:
        try:
            client.send(bytes([byte]))
            if client.recv(1, socket.MSG_PEEK):
                break
        except BlockingIOError:
            time.sleep(seconds)
    else:
        return False
    client.settimeout(10)
    return True


def test_a_trickle_does_not_extend_the_header_deadline(connection: socket.socket) -> None:
    assert trickle(connection, b"GET /" + b"a" * 200, 0.05)
    error_of(read_all(connection), 408)


def test_empty_lines_are_no_way_around_the_deadline(connection: socket.socket) -> None:
    connection.sendall(GET)
    read_until(connection, b"size=0")
    assert trickle(connection, b"\r\n" * 100, 0.05)
    error_of(read_all(connection), 408)


@pytest.mark.parametrize(
    "body", [b"", b"half", pytest.param(b"x" * 100_000, id="larger than uvicorn's buffer")]
)
def test_half_a_body_gets_408(connection: socket.socket, body: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    connection.sendall(head + body)
    error = error_of(read_all(connection), 408)
    assert error["code"] == "request_timeout"
    assert "body" in error["message"]


def test_a_claimed_length_buys_no_time(connection: socket.socket) -> None:
    connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n")
    error_of(read_all(connection), 408)  # within the socket's timeout


def test_a_body_that_keeps_up_earns_time(connection: socket.socket) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
    connection.sendall(head)
    for _ in range(10):
        connection.sendall(b"x" * 300_000)
        time.sleep(0.1)
    assert b"size=3000000" in read_until(connection, b"size=3000000")


def flood(client: socket.socket, start: bytes, block: bytes, blocks: int) -> bytes:
    """Send everything, which must not be reset in the middle, then return the reply."""
    client.sendall(start)
    for _ in range(blocks):
        client.sendall(block)
    return read_all(client)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"GET / HTTP/1.1\r\nA: ", id="value"),
        pytest.param(b"GET / HTTP/1.1\r\n", id="name"),
        pytest.param(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", id="chunk"),
        pytest.param(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: ", id="trailer"
        ),
    ],
)
def test_an_endless_header_gets_431(connection: socket.socket, start: bytes) -> None:
    reply = flood(connection, start, b"a" * 10_000, 300)
    assert error_of(reply, 431)["code"] == "header_too_large"


def test_an_endless_url_gets_414(connection: socket.socket) -> None:
    reply = flood(connection, b"GET /", b"a" * 10_000, 3)
    assert error_of(reply, 414)["code"] == "uri_too_long"


def test_many_bytes_in_small_fields_get_431(connection: socket.socket) -> None:
    fields = b"".join(b"a%d: %s\r\n" % (n, b"x" * 2000) for n in range(60))
    connection.sendall(b"GET / HTTP/1.1\r\n" + fields + b"\r\n")
    error_of(read_all(connection), 431)


def test_more_than_100_fields_get_431(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n")
    assert "100 fields" in error_of(read_all(connection), 431)["message"]


def test_100_fields_of_60_kib_are_accepted(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\n" + b"a: %s\r\n" % (b"b" * 600) * 100 + b"\r\n")
    assert read_until(connection, b"size=0").startswith(b"HTTP/1.1 200 ")


def test_one_field_beyond_the_line_limit_gets_431(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nCookie: " + b"b" * 17_000 + b"\r\n\r\n")
    error_of(read_all(connection), 431)


def test_a_large_body_in_one_read_with_its_header_is_accepted(connection: socket.socket) -> None:
    size = 2_000_000
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    for _ in range(3):
        connection.sendall(head + b"x" * size)
        assert b"200" in read_until(connection, b"size=%d" % size)


def test_a_body_of_many_chunks_is_accepted(connection: socket.socket) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head + b"1;name=value\r\nx\r\n" * 20_000 + b"0\r\nA: trailer\r\n\r\n")
    read_until(connection, b"size=20000")


def test_the_second_request_of_a_connection_is_guarded_too(connection: socket.socket) -> None:
    connection.sendall(GET)
    read_until(connection, b"size=0")
    time.sleep(0.7)  # idle longer than the header's deadline: keep-alive is uvicorn's to time
    connection.sendall(GET)
    read_until(connection, b"size=0")
    connection.sendall(GET[:-2])
    assert error_of(read_all(connection), 408)["code"] == "request_timeout"


def test_a_long_answer_is_not_timed(connection: socket.socket) -> None:
    connection.sendall(STREAM)
    assert b"14;" in read_until(connection, b"size=0")


def test_an_answer_that_stays_unread_ends_the_connection(connection: socket.socket) -> None:
    connection.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(1.5)
    received = 0
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += len(data)
    assert 0 < received < 32 * 2**20


def test_pipelined_requests_are_answered_in_order(connection: socket.socket) -> None:
    post = b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    connection.sendall(STREAM + post + GET)
    received = b""
    while received.count(b"size=") < 3:
        received += read_until(connection, b"size=")
    assert received.index(b"14;") < received.index(b"size=100000") < received.rindex(b"HTTP/1.1 ")
    assert received.count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize(
    ("second", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nA: ", 408, id="half header"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx", 408, id="half body"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200, 431, id="fields"),
        pytest.param(b"not http\r\n\r\n", 400, id="rubbish"),
    ],
)
def test_a_refusal_waits_for_the_answer_before_it(
    connection: socket.socket, second: bytes, status: int
) -> None:
    connection.sendall(STREAM + second)
    received = read_all(connection)
    assert b"14;" in received
    assert received.count(b"HTTP/1.1 ") == 2
    error_of(received, status)


def test_the_clock_starts_anew_after_the_answer_before(connection: socket.socket) -> None:
    connection.sendall(STREAM + GET[:9])
    read_until(connection, b"size=0")
    connection.sendall(GET[9:])
    assert read_until(connection, b"size=0").count(b"HTTP/1.1 200 ") == 1


def test_each_request_has_its_own_100_fields(connection: socket.socket) -> None:
    for _ in range(3):
        connection.sendall(GET[:-2] + b"a: b\r\n" * 60 + b"\r\n")
        assert b"HTTP/1.1 200 " in read_until(connection, b"size=0")


def test_a_body_that_no_one_reads_ends_the_connection(connection: socket.socket) -> None:
    connection.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
    received = read_all(connection)
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 200 ")


def test_what_is_not_http_gets_the_envelope(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    assert error_of(read_all(connection), 400)["code"] == "invalid_http_request"


def test_a_websocket_request_is_answered_as_plain_http(connection: socket.socket) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    connection.sendall(GET[:-2] + upgrade + b"\r\n")
    assert read_until(connection, b"size=0").startswith(b"HTTP/1.1 200 ")


def test_slow_sockets_are_all_closed_while_others_are_served(address: tuple[str, int]) -> None:
    slow = [socket.create_connection(address, timeout=10) for _ in range(200)]
    for number, client in enumerate(slow):
        client.sendall(b"GET /" if number % 2 else b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n")
    waits = []
    for _ in range(20):
        begin = time.monotonic()
        with socket.create_connection(address, timeout=10) as probe:
            probe.sendall(GET)
            read_until(probe, b"size=0")
        waits.append(time.monotonic() - begin)
        time.sleep(0.05)
    for client in slow:
        with client:
            error_of(read_all(client), 408)
    assert max(waits) < 5  # wide, as the host may be busy


def test_limits_belong_to_the_class_that_was_made() -> None:
    first, second = guarded_protocol(LIMITS), guarded_protocol(GuardLimits())
    assert first.limits.header_seconds == 0.5
    assert second.limits == GuardLimits()
