"""From exceptions to OpenAI's error envelope: one table, one place.

What a client sent is never repeated in a message: it may hold secrets, and it may not even be
encodable. Fields are named by `param`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

from adapters.errors import UnsupportedChat
from engines.errors import (
    EngineCrashed,
    EngineError,
    EngineOverloaded,
    EngineUnavailable,
    InvalidRequest,
)
from server.protocol import FIELD_NAMES, FieldError
from server.replies import ErrorBody, ErrorDetail, encode

logger = logging.getLogger(__name__)


class ApiError(Exception):
    """An error with its wire form decided: status, and the four keys of the envelope."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(message=message, type=type, param=param, code=code)
        self.headers = headers or {}

    @property
    def body(self) -> bytes:
        """The envelope as JSON."""
        return encode(ErrorBody(self.detail))


class ClientGoneError(Exception):
    """The client closed the connection: there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    type: str
    code: str | None


_TABLE: dict[type[BaseException], _Row] = {
    InvalidRequest: _Row(400, "invalid_request_error", "invalid_value"),
    UnsupportedChat: _Row(400, "invalid_request_error", "unsupported_value"),
    EngineOverloaded: _Row(503, "server_error", "overloaded"),
    EngineUnavailable: _Row(503, "server_error", "engine_unavailable"),
    EngineCrashed: _Row(500, "server_error", "engine_crashed"),
    EngineError: _Row(500, "server_error", "engine_error"),
}

_STATUS_CODES = {
    404: "unknown_url",
    405: "method_not_allowed",
    413: "request_too_large",
    415: "unsupported_media_type",
}


def to_api_error(error: BaseException) -> ApiError:
    """Translate any exception; what is not in the table is a 500 whose cause stays in the log."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValidationError):
        return invalid_body(error)
    if isinstance(error, HTTPException):
        return _from_status(error)
    row = next((_TABLE[cls] for cls in type(error).__mro__ if cls in _TABLE), None)
    if row is None:
        logger.error("unexpected error", exc_info=error)
        return ApiError(500, "The server had an error of its own.", type="server_error")
    headers = {}
    if isinstance(error, EngineOverloaded | EngineUnavailable):
        headers["Retry-After"] = str(max(1, error.retry_after))
    code = error.code if isinstance(error, InvalidRequest) else row.code
    given = getattr(error, "param", None)
    param = safe_param(given)
    # A field that no name can be made of is a client's own text, and the message repeats it.
    message = str(error) if param == given else "A field of the request is not supported."
    return ApiError(row.status, message, type=row.type, param=param, code=code, headers=headers)


@contextmanager
def naming_prompt(field: str) -> Iterator[None]:
    """Name the prompt as this URL does: an engine cannot know whether it came as messages."""
    try:
        yield
    except InvalidRequest as error:
        if error.param in ("messages", "prompt"):
            error.param = field
        raise


def _from_status(error: HTTPException) -> ApiError:
    message = {
        404: "There is nothing at this URL.",
        405: "This URL does not take that method.",
    }.get(error.status_code, error.detail)
    return ApiError(
        error.status_code,
        message,
        code=_STATUS_CODES.get(error.status_code),
        headers=dict(error.headers or {}),
    )


def invalid_body(error: ValidationError) -> ApiError:
    """Name the first field that is wrong, and how."""
    item = _most_telling(error.errors(include_url=False, include_input=False))
    param = param_of(item["loc"])
    if item["type"] == "missing":
        return ApiError(
            400,
            f"The field {param} is required.",
            param=param,
            code="missing_required_parameter",
        )
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        param = f"{param}.{cause.param}" if param else cause.param
    message = item["msg"].removeprefix("Value error, ")
    code = "invalid_type" if item["type"].endswith("_type") else "invalid_value"
    return ApiError(400, f"Invalid value: {message}.", param=param, code=code)


def _most_telling(items: Sequence[ErrorDetails]) -> ErrorDetails:
    """Of the errors of a union's members, the deepest is of the member that was meant."""
    first = items[0]["loc"][:1]
    same = [item for item in items if item["loc"][:1] == first]
    return max(same, key=lambda i: (len(param_of(i["loc"]) or ""), not i["type"].endswith("_type")))


def param_of(location: Sequence[int | str]) -> str | None:
    """`("messages", 0, "role")` -> `messages[0].role`.

    What is no field is left out: pydantic's names for the members of a union, and the client's
    own keys in a mapping.
    """
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step in FIELD_NAMES:
            path += f".{step}" if path else step
    return path or None


def safe_param(param: str | None) -> str | None:
    """Let a name through only if it looks like one: it may come from the client."""
    if param is None:
        return None
    return param if re.fullmatch(r"[A-Za-z_][\w.\[\]]{0,127}", param) else None
