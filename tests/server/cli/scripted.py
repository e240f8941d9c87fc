"""A small HTTP server that answers as a test tells it: slowly, half, or wrongly."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Reply = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request, and the way to answer it."""

    server: ScriptedServer
    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    writer: asyncio.StreamWriter

    @property
    def body(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.content)
        return value

    @property
    def messages(self) -> list[tuple[str, str]]:
        return [(message["role"], message["content"]) for message in self.body["messages"]]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def start(self, status: int, kind: str) -> None:
        head = f"HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n"
        await self.send(head.encode())


@dataclass
class ScriptedServer:
    """`answers` holds the replies to coming chat requests; then each message is echoed."""

    url: str
    loop: asyncio.AbstractEventLoop
    gate: asyncio.Semaphore
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: deque[Reply] = field(default_factory=deque)
    requests: list[Exchange] = field(default_factory=list)
    has_lost_client: threading.Event = field(default_factory=threading.Event)

    @property
    def chats(self) -> list[Exchange]:
        return [request for request in self.requests if request.method == "POST"]

    def release(self) -> None:
        """Let the stream that waits at the gate go one piece further."""
        self.loop.call_soon_threadsafe(self.gate.release)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            exchange = await self._receive(reader, writer)
            reply = asyncio.ensure_future(self._reply_to(exchange)(exchange))
            leaving = asyncio.ensure_future(reader.read(1))
            await asyncio.wait({reply, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not reply.done():
                self.has_lost_client.set()
            for task in (reply, leaving):
                task.cancel()
            await asyncio.gather(reply, leaving, return_exceptions=True)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _receive(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Exchange:
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = start.split(" ")
        exchange = Exchange(self, method, path, headers, content, writer)
        self.requests.append(exchange)
        return exchange

    def _reply_to(self, exchange: Exchange) -> Reply:
        if exchange.method == "POST":
            if self.answers:
                return self.answers.popleft()
            return stream("You said: ", exchange.messages[-1][1])
        name = exchange.path.partition("/v1/models")[2].lstrip("/")
        listed = [
            {"id": name, "object": "model", "created": 1, "owned_by": "test"}
            for name in self.models
        ]
        if not name:
            return reply_json({"object": "list", "data": listed})
        if name not in self.models:
            return reply_json({"error": {"message": "no such model", "code": "nope"}}, status=404)
        return reply_json({"id": name, "object": "model", **self.models[name]})


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk(text: str | None = None, finish: str | None = None) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None}


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
END = (
    event(chunk(finish="stop")) + event({"choices": [], "usage": USAGE}),
    b"data: [DONE]\n\n",
)


def send_raw(*blocks: bytes, kind: str = "text/event-stream") -> Reply:
    async def reply(exchange: Exchange) -> None:
        await exchange.start(200, kind)
        for block in blocks:
            await exchange.send(block)

    return reply


def stream(*texts: str) -> Reply:
    return send_raw(*(event(chunk(text)) for text in texts), *END)


def gated(*texts: str) -> Reply:
    """Stream, but wait at the server's gate after each piece."""

    async def reply(exchange: Exchange) -> None:
        await exchange.start(200, "text/event-stream; charset=utf-8")
        for text in texts:
            await exchange.send(event(chunk(text)))
            await exchange.server.gate.acquire()
        await exchange.send(b"".join(END))

    return reply


def reply_json(value: object, status: int = 200) -> Reply:
    async def reply(exchange: Exchange) -> None:
        await exchange.start(status, "application/json")
        await exchange.send(json.dumps(value).encode())

    return reply


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """Run a server in a thread of its own."""
    made: list[ScriptedServer] = []
    is_up = threading.Event()
    stopping: list[Callable[[], object]] = []

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        listener = await asyncio.start_server(
            lambda reader, writer: made[0].serve(reader, writer), "127.0.0.1", 0
        )
        port = listener.sockets[0].getsockname()[1]
        made.append(ScriptedServer(f"http://127.0.0.1:{port}/v1", loop, asyncio.Semaphore(0)))
        made[0].models["tiny"] = {}
        stopping.append(lambda: loop.call_soon_threadsafe(stop.set))
        is_up.set()
        async with listener:
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert is_up.wait(10)
    try:
        yield made[0]
    finally:
        stopping[0]()
        thread.join(10)
