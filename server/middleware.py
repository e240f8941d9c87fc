"""What happens to every request before a route sees it: identity, Host, key, and after it: timing.

Pure ASGI on `scope` alone. The path an authorisation looks at is the path the router uses; the
Host header has no part in either.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import ApiError, ClientGoneError, to_api_error

logger = logging.getLogger("server.access")

PUBLIC_PATHS = frozenset({"/health", "/health/live", "/health/ready"})
OPENAI_VERSION = "2020-10-01"
_PRINTABLE = re.compile(r"[^\x21-\x7e]")


class RequestIdentity:
    """Outermost: gives each request its id, adds the headers of every reply, writes the log line.

    A client's own `X-Request-Id` is not used: it would travel into logs and engines.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request; turn an error before the first byte into the envelope."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope.setdefault("state", {})["request_id"] = request_id = f"req_{uuid.uuid4().hex}"
        started = time.perf_counter()
        status = 0

        async def send_with_identity(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-version"] = OPENAI_VERSION
                headers["openai-processing-ms"] = str(int((time.perf_counter() - started) * 1000))
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        try:
            await self.app(scope, receive, send_with_identity)
        except ClientGoneError:
            pass
        except Exception as error:
            if status:
                raise
            await send_error(to_api_error(error), send_with_identity)
        finally:
            _log(scope, status, time.perf_counter() - started)


def _log(scope: Scope, status: int, seconds: float) -> None:
    """One line a request: no query, no body, no key, no control character."""
    path = _PRINTABLE.sub("?", scope["path"][:200])
    logger.info(
        "%s %s %d %.0f ms %s",
        scope["method"][:16],
        path,
        status or 499,
        seconds * 1000,
        scope["state"]["request_id"],
    )


async def send_error(error: ApiError, send: Send) -> None:
    """Send an error as a whole response."""
    body = error.body
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((k.lower().encode(), v.encode()) for k, v in error.headers.items()),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class TrailingSlash:
    """`/v1/models/` means `/v1/models`: without a redirect, which would lose a POST's body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Cut one trailing slash off the path."""
        if scope["type"] == "http" and len(scope["path"]) > 1 and scope["path"].endswith("/"):
            scope["path"] = scope["path"][:-1]
        await self.app(scope, receive, send)


class HostCheck:
    """On a loopback address, answers only to its own names: a rebound DNS name is refused."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self.app = app
        self.allowed = frozenset(name.lower() for name in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a Host that is none of ours."""
        if scope["type"] == "http" and not self._is_ours(Headers(scope=scope).get("host", "")):
            raise ApiError(400, "This server does not answer to that Host.", code="invalid_host")
        await self.app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:\d{1,5})?", host)
        return match is not None and match[1].strip("[]").lower() in self.allowed


class ApiKeyCheck:
    """Every path needs a key but the frozen public list; without configured keys all are open."""

    def __init__(self, app: ASGIApp, keys: Iterable[str]) -> None:
        self.app = app
        self.digests = tuple(_digest(key.encode()) for key in keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request without a right key."""
        if scope["type"] == "http" and self.digests and scope["path"] not in PUBLIC_PATHS:
            self._authenticate(scope)
        await self.app(scope, receive, send)

    def _authenticate(self, scope: Scope) -> None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        digest = _digest(key.strip())
        # All keys are compared, and digests of equal length: time tells nothing of a key.
        matches = [hmac.compare_digest(digest, known) for known in self.digests]
        if scheme.lower() != b"bearer" or not any(matches):
            raise ApiError(
                401,
                "Incorrect API key provided: send one of the server's API_KEYS as Bearer token."
                if given
                else "You didn't provide an API key: send it as `Authorization: Bearer KEY`.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
