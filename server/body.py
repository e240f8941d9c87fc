"""Read a JSON request body without letting it harm the server.

The standard library's parser is kept, because it is the one that can see duplicate keys; what it
would let through or die of is stopped around it: size, nesting, NaN, lone surrogates, bad UTF-8.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request

from server.errors import ApiError, ClientGoneError

MAX_DEPTH = 64
LARGE = 64 * 2**10
"""Bytes from which a body is parsed in a thread: some MiB of small objects take seconds."""

# Possessive, and matching an unclosed string too: nothing is ever scanned twice or remembered, so
# a body of quotes and backslashes costs no more than any other.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


async def read_json(request: Request, max_bytes: int) -> dict[str, Any]:
    """Return the body as an object. Raises `ApiError` 400, 413 or 415, or `ClientGoneError`."""
    _check_headers(request)
    body = await _read(request, max_bytes)
    if len(body) > LARGE:
        return await anyio.to_thread.run_sync(parse_json, body)
    return parse_json(body)


def _check_headers(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # Also a guard: a browser may send text/plain across origins without asking first.
    if media_type != "application/json":
        raise ApiError(
            415, "The content type must be application/json.", code="unsupported_media_type"
        )
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ApiError(
            415, "Compressed request bodies are not read.", code="unsupported_content_encoding"
        )


async def _read(request: Request, max_bytes: int) -> bytes:
    too_large = ApiError(
        413, f"The request body is larger than {max_bytes} bytes.", code="request_too_large"
    )
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise too_large
    except ClientDisconnect:
        raise ClientGoneError from None
    return bytes(body)


def parse_json(body: bytes) -> dict[str, Any]:
    """Parse one JSON object. Raises `ApiError` 400 for anything else."""
    if _depth_exceeds(body, MAX_DEPTH):
        raise _invalid(f"it is nested deeper than {MAX_DEPTH} levels")
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
        if b"\\u" in body:
            _refuse_surrogates(value)
    except UnicodeError:
        raise _invalid("it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _invalid(_reason(error)) from None
    if not isinstance(value, dict):
        raise _invalid("it must be an object")
    return value


def _invalid(reason: str) -> ApiError:
    return ApiError(400, f"The request body is not valid JSON: {reason}.", code="invalid_json")


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, _BadValueError):
        return str(error)
    return "a number is too long"


class _BadValueError(ValueError):
    """Our own complaint; its message is safe to send."""


def _depth_exceeds(body: bytes, limit: int) -> bool:
    """Tell whether brackets outside strings nest deeper than `limit`; linear in the body."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    depth = 0
    for bracket in re.finditer(rb"[\[\]{}]", _STRINGS.sub(b"", body)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > limit:
            return True
    return False


def _refuse_constant(_: str) -> None:
    raise _BadValueError("NaN and Infinity are not JSON")


def _finite(digits: str) -> float:
    """Refuse `1e999`: as an infinity it would travel on in fields that hold any JSON."""
    value = float(digits)
    if math.isinf(value):
        raise _BadValueError("a number is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _BadValueError("an object has the same key twice")
    return value


def _refuse_surrogates(value: object) -> None:
    """A lone surrogate is legal in JSON's grammar but is no text: nothing can encode it."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise _BadValueError("a string contains half of a surrogate pair") from None
