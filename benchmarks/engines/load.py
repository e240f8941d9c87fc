"""Waves of simultaneous streamed completions over HTTP, from a client that costs little.

While a wave runs, the client keeps the bytes and the time at which they came, and does nothing
else with them: on a machine of few cores its work would be taken from the server's. They are
parsed afterwards. A chunk came when the last of its bytes did.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

SECONDS_PER_WAVE = 300.0


class LoadError(Exception):
    """A server did not do what was asked of it; the message says what came instead."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One streamed answer. Times are in seconds since its wave began.

    `stamps` are those of the chunks with text. `prompt_tokens` and `cached_tokens` are as the
    server counts them; None where its streams do not tell.
    """

    stamps: tuple[float, ...]
    tokens: int
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Wave:
    """The answers to requests sent at once, and the seconds until the last of them was whole."""

    streams: tuple[Stream, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A /v1 root over plain HTTP, and the name of the model to ask there."""

    base_url: str
    model: str

    async def wave(self, prompts: list[str], max_tokens: int) -> Wave:
        """Ask for greedy completions of exactly `max_tokens` tokens, all at once.

        Raises `LoadError` if any of them is refused, breaks off, or is shorter.
        """
        requests = [self._request(self._body(prompt, max_tokens)) for prompt in prompts]
        started = time.perf_counter()
        answers = await asyncio.gather(*(self._exchange(request) for request in requests))
        return Wave(
            tuple(read_stream(pieces, started, max_tokens) for pieces in answers),
            max(pieces[-1][0] for pieces in answers) - started,
        )

    def _body(self, prompt: str, max_tokens: int) -> bytes:
        fields = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return msgspec.json.encode(fields)

    def _request(self, body: bytes) -> bytes:
        url = urlsplit(self.base_url)
        head = (
            f"POST {url.path.rstrip('/')}/completions HTTP/1.1\r\nHost: {url.netloc}\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def _exchange(self, request: bytes) -> list[Piece]:
        """Send a request on a connection of its own; return what came until it was closed."""
        url = urlsplit(self.base_url)
        loop = asyncio.get_running_loop()
        answer = _Answer(request, loop.create_future())
        try:
            async with asyncio.timeout(SECONDS_PER_WAVE):
                await loop.create_connection(lambda: answer, url.hostname or "", url.port or 80)
                await answer.closed
        except (OSError, TimeoutError) as error:
            raise LoadError(f"{self.base_url}: {str(error) or 'no answer in time'}") from error
        if not answer.pieces:
            raise LoadError(f"{self.base_url} closed the connection without an answer")
        return answer.pieces


Piece = tuple[float, bytes]
"""Bytes, and when they came."""


class _Answer(asyncio.Protocol):
    """Sends a request and keeps what comes back."""

    def __init__(self, request: bytes, closed: asyncio.Future[None]) -> None:
        self.pieces: list[Piece] = []
        self.closed = closed
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        cast(asyncio.WriteTransport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Keep the bytes and the time."""
        self.pieces.append((time.perf_counter(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        """End the wait; what is missing shows when the answer is read."""
        del exc
        if not self.closed.done():
            self.closed.set_result(None)


class _Choice(msgspec.Struct):
    text: str | None = None
    finish_reason: str | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


@dataclass(slots=True)
class _Reader:
    """Collects what the chunks of one answer say; `httptools` calls `on_body`."""

    stamps: list[float] = field(default_factory=list)
    usage: _Usage | None = None
    finish_reason: str | None = None
    body: bytes = b""
    now: float = 0.0

    def on_body(self, body: bytes) -> None:
        self.body += body

    def take_lines(self) -> None:
        """Read the lines that are whole; keep the rest for later."""
        *lines, self.body = self.body.split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                self._take(line.removeprefix(b"data: "))

    def _take(self, payload: bytes) -> None:
        chunk = _decode(payload)
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            self.finish_reason = choice.finish_reason or self.finish_reason
            if choice.text:
                self.stamps.append(self.now)


def read_stream(pieces: list[Piece], started: float, max_tokens: int) -> Stream:
    """Make a `Stream` of the bytes of an HTTP answer.

    Raises `LoadError` unless it is a stream that ended after exactly `max_tokens` tokens.
    """
    reader = _Reader()
    parser = httptools.HttpResponseParser(reader)
    received = b"".join(data for _, data in pieces)
    try:
        for came, data in pieces:
            reader.now = came - started
            parser.feed_data(data)
            if parser.get_status_code() == 200:
                reader.take_lines()
    except (httptools.HttpParserError, msgspec.DecodeError) as error:
        raise LoadError(f"unreadable answer ({error}): {received[-500:]!r}") from error
    tokens = reader.usage.completion_tokens if reader.usage is not None else max_tokens
    if not reader.stamps or reader.finish_reason != "length" or tokens != max_tokens:
        raise LoadError(f"no stream of {max_tokens} tokens: {received[-500:]!r}")
    return _stream(reader, tokens)


def _stream(reader: _Reader, tokens: int) -> Stream:
    usage = reader.usage
    if usage is None:
        return Stream(tuple(reader.stamps), tokens)
    details = usage.prompt_tokens_details or _Details()
    return Stream(tuple(reader.stamps), tokens, usage.prompt_tokens, details.cached_tokens)
