"""The connection guard: a client that is slow or oversized before its request is whole is cut off.

uvicorn times nothing until a request has arrived in full, and httptools collects a header of any
size, so a few idle sockets or one endless header would hold the server before any key is checked.
Every fault is answered with OpenAI's error envelope. Nothing here times a response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from server.replies import ErrorBody, ErrorDetail, encode

# httptools does not tell how much of its input was header. Fed in slices this small, what it was
# given is known to one slice: a body in the same read as its header is never taken for header.
_SLICE_BYTES = 8 * 2**10


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """What one connection may take until its request has arrived.

    The seconds are absolute: bytes that trickle in never extend them. Only the body earns time
    beyond `body_seconds`, one second for every `body_bytes_per_second` that really came, so an
    upload of 8 MiB at the least speed may take 158 s and a claimed length buys nothing.
    `header_bytes` counts request line and fields together (exact to 8 KiB), `line_bytes` the URL
    or one field. `linger_seconds` is how long a refused client may still read its answer, and
    `unread_seconds` how long an answer may stay unread once the buffers are full.
    """

    header_seconds: float = 10.0
    body_seconds: float = 30.0
    body_bytes_per_second: float = 64 * 2**10
    header_bytes: int = 64 * 2**10
    line_bytes: int = 16 * 2**10
    header_fields: int = 100
    linger_seconds: float = 1.0
    # Longer than the send timeout of streams, which says why it ends one.
    unread_seconds: float = 40.0


class _Refusal(Exception):
    """Why a connection is given up: the status and the envelope's message and code."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(message, type="invalid_request_error", code=code)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with deadlines and size limits while a request arrives."""

    limits: ClassVar[GuardLimits] = GuardLimits()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._phase: Literal["idle", "header", "body"] = "idle"
        self._phase_start = 0.0  # loop time
        self._timer: asyncio.TimerHandle | None = None
        self._field_count = 0
        self._url_bytes = 0
        self._unparsed_bytes = 0  # since the parser last completed a header or gave some body
        self._is_progress = False  # whether it did so in the current slice
        self._body_bytes = 0
        self._refusal: _Refusal | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    # The transport's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a client that stays silent is cut off, too."""
        super().connection_made(transport)
        self._enter("header")
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_timer()
        self._stop_unread_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Bound how long a client may leave its answer unread: closing would wait for it."""
        super().pause_writing()
        self._stop_unread_timer()
        self._unread_timer = self.loop.call_later(self.limits.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that the client reads on."""
        self._stop_unread_timer()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Feed the parser in slices and count what it swallows without result."""
        if self._phase == "idle":
            # Not at the parser's first callback: empty lines before a request cause none.
            self._enter("header")
        for start in range(0, len(data), _SLICE_BYTES):
            if self._refusal is not None or self.transport.is_closing():
                return
            self._feed(data[start : start + _SLICE_BYTES])
        # Last, so that a request which came whole in one read costs no timer.
        self._watch()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, unguarded."""
        self._enter("idle")
        super().handle_websocket_upgrade()

    # The parser's side

    def on_message_begin(self) -> None:
        """Guard the next request of a connection, which may begin in the middle of a read."""
        super().on_message_begin()
        self._field_count = self._url_bytes = 0
        if self._phase == "idle":
            self._enter("header")

    def on_url(self, url: bytes) -> None:
        """Limit the URL's length."""
        self._url_bytes += len(url)
        if self._url_bytes > self.limits.line_bytes:
            limit = self.limits.line_bytes
            self._fail(_Refusal(414, f"The URL is longer than {limit} bytes.", "uri_too_long"))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Limit each field and their number, trailers included."""
        self._field_count += 1
        if self._field_count > self.limits.header_fields:
            self._fail(_too_large(f"more than {self.limits.header_fields} fields"))
        if len(name) + len(value) > self.limits.line_bytes:
            self._fail(_too_large(f"a field of more than {self.limits.line_bytes} bytes"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let the request start, and start the body's clock."""
        super().on_headers_complete()
        self._is_progress = True
        self._enter("body")

    def on_body(self, body: bytes) -> None:
        """Count what earns the body its time; what is thrown away earns none."""
        self._is_progress = True
        if not self.cycle.response_complete:
            self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock: the request is whole."""
        super().on_message_complete()
        self._is_progress = True
        self._enter("idle")

    # uvicorn's side

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP, or broke a limit, with the envelope."""
        self._refuse(self._refusal or _Refusal(400, msg, "invalid_http_request"))

    def on_response_complete(self) -> None:
        """Take up again what had to wait for an answer to end."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._refusal is not None:
            self._refuse(self._refusal)
        elif self._phase != "idle":
            # uvicorn may have paused reading meanwhile, which is not the client's fault.
            self._enter(self._phase)
            self._watch()

    # The guard itself

    def _feed(self, data: bytes) -> None:
        self._is_progress = False
        super().data_received(data)
        if self._is_progress:
            self._unparsed_bytes = 0
            return
        self._unparsed_bytes += len(data)
        if self._refusal is None and self._unparsed_bytes > self.limits.header_bytes:
            self._refuse(_too_large(f"more than {self.limits.header_bytes} bytes"))

    def _enter(self, phase: Literal["idle", "header", "body"]) -> None:
        self._stop_timer()
        self._phase = phase
        self._phase_start = self.loop.time()
        self._body_bytes = 0

    def _watch(self) -> None:
        if self._phase != "idle" and self._timer is None and self._refusal is None:
            self._set_timer(self._seconds_left(), self._expire)

    def _seconds_left(self) -> float:
        if self._phase == "header":
            allowed = self.limits.header_seconds
        else:
            earned = self._body_bytes / self.limits.body_bytes_per_second
            allowed = self.limits.body_seconds + earned
        return self._phase_start + allowed - self.loop.time()

    def _set_timer(self, seconds: float, action: Callable[[], object]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, action)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _expire(self) -> None:
        self._timer = None
        if self._is_answering():
            return  # on_response_complete starts the clock anew
        if self._seconds_left() > 0:
            self._watch()
            return
        message = f"The {self._phase} of the request did not arrive in time."
        self._refuse(_Refusal(408, message, "request_timeout"))

    def _is_answering(self) -> bool:
        """Whether an answer is under way that a refusal must not cut into."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.disconnected:
            return False
        # `cycle` is the latest request: while a body arrives it is that request itself,
        # else an earlier one, as it is when requests are queued.
        return self._phase != "body" or bool(self.pipeline) or cycle.response_started

    def _fail(self, refusal: _Refusal) -> None:
        """Stop the parser inside a callback; uvicorn then calls `send_400_response`."""
        self._refusal = refusal
        raise refusal

    def _refuse(self, refusal: _Refusal) -> None:
        """Give the connection up, once answers under way have ended."""
        self._refusal = refusal
        self._stop_timer()
        if not (self._is_answering() or self.transport.is_closing()):
            self._hang_up(refusal)

    def _hang_up(self, refusal: _Refusal) -> None:
        cycle = self.cycle if self._phase == "body" else None
        if cycle is None or not cycle.response_started:
            self.transport.write(self._wire(refusal))
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        # To close a socket that still has unread input resets it, and the answer could be lost:
        # end our side, throw away what comes, and close when the client has or a moment later.
        self.transport.write_eof()
        self._set_timer(self.limits.linger_seconds, self.transport.abort)

    def _wire(self, refusal: _Refusal) -> bytes:
        body = encode(ErrorBody(refusal.detail))
        fields = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        return STATUS_LINE[refusal.status] + lines + b"\r\n" + body


def _too_large(what: str) -> _Refusal:
    return _Refusal(431, f"The header of the request has {what}.", "header_too_large")


def guarded_protocol(limits: GuardLimits) -> type[GuardedProtocol]:
    """Return a protocol class with these limits, for uvicorn's `http=`."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits})
