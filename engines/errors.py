"""The errors that cross from the engines to their callers.

EngineError
├── UnknownEngine            no engine of that name is registered
├── MissingDependency        the engine's library is not installed
├── InvalidOption            an option of the engine is unknown or has a wrong value
├── ModelLoadError           the weights cannot be loaded: file, format, memory
├── InvalidRequest           this request cannot be run; another could
│   ├── ContextLengthExceeded
│   ├── InputTooLong         the same of one of the inputs to embed
│   ├── UnsupportedOperation the model cannot do this at all: embed, or generate text
│   ├── UnsupportedParameter the engine cannot honour a parameter
│   ├── InvalidParameter     a value the engine only now can see is wrong
│   └── QuarantinedRequest   it was running each time the engine crashed; not tried again
├── EngineOverloaded         the queue is full; try again later
├── EngineUnavailable        not running now: loading, restarting, closed
├── EngineCrashed            it died while this request was running
└── UpstreamError            a proxied server answered with an error
"""

from __future__ import annotations

from collections.abc import Sequence


class EngineError(Exception):
    """Base of all errors an engine raises."""


class UnknownEngine(EngineError):
    """No engine of that name is registered."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"unknown engine {name!r}; LLM_ENGINE must be one of {', '.join(known)}")


class MissingDependency(EngineError):
    """The engine's library is not installed; the message says how to install it."""

    def __init__(self, engine: str, library: str, remedy: str) -> None:
        super().__init__(f"the {engine!r} engine needs {library}, which is not installed: {remedy}")


class InvalidOption(EngineError):
    """An option of the engine is unknown or has a wrong value. `option` is its name, or empty."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}" if option else message)
        self.option = option


class ModelLoadError(EngineError):
    """The weights cannot be loaded; the message names the file and what would help."""


class InvalidRequest(EngineError):
    """This request cannot be run. `param` is the wire name of the field at fault, if one is."""

    code: str | None = "invalid_value"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit the context. Counts are tokens."""

    code = "context_length_exceeded"

    def __init__(
        self,
        limit: int,
        prompt_tokens: int,
        max_tokens: int | None = None,
        *,
        is_lower_bound: bool = False,
    ) -> None:
        asked = prompt_tokens + (max_tokens or 0)
        detail = f"{prompt_tokens} in the messages"
        if max_tokens is not None:
            detail += f", {max_tokens} in the completion"
        # A prompt that cannot fit is not tokenised to its end, so there may be more.
        bound = "at least " if is_lower_bound else ""
        super().__init__(
            f"This model's maximum context length is {limit} tokens. However, you requested "
            f"{bound}{asked} tokens ({detail}). Please reduce the length of the messages or "
            "completion.",
            param="messages",
        )
        self.limit = limit
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens


class InputTooLong(InvalidRequest):
    """One of the inputs to embed, `param`, does not fit the context. Counts are tokens."""

    code = "context_length_exceeded"

    def __init__(
        self, limit: int, prompt_tokens: int, param: str, *, is_lower_bound: bool = False
    ) -> None:
        bound = "at least " if is_lower_bound else ""
        super().__init__(
            f"This model's maximum context length is {limit} tokens. However, {param} has {bound}"
            f"{prompt_tokens} tokens. Please reduce its length.",
            param=param,
        )
        self.limit = limit
        self.prompt_tokens = prompt_tokens


class UnsupportedOperation(InvalidRequest):
    """The model cannot do what was asked, whatever the request: embed, or generate text."""

    code = "unsupported_operation"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="model")


class UnsupportedParameter(InvalidRequest):
    """The engine cannot honour a parameter; silence would be worse."""

    code = "unsupported_parameter"

    def __init__(self, param: str, engine: str, detail: str = "") -> None:
        message = f"{param!r} is not supported by the {engine!r} engine"
        super().__init__(f"{message}: {detail}" if detail else message, param=param)


class InvalidParameter(InvalidRequest):
    """A value that only the engine can judge is wrong: a token id outside the vocabulary."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message, param=param)


class QuarantinedRequest(InvalidRequest):
    """The same request was running at several crashes of the engine; it is not run again."""

    code = "request_quarantined"


class EngineOverloaded(EngineError):
    """The engine's queue is full. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineUnavailable(EngineError):
    """The engine does not run now. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int = 2) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineCrashed(EngineError):
    """The engine died while this request was running; what was generated is lost."""


class UpstreamError(EngineError):
    """A proxied server answered with an error status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def internal_error(error: Exception) -> EngineError:
    """Return what a caller may know of a bug in an engine; the traceback belongs to the log."""
    return EngineError(f"the engine failed on this request ({type(error).__name__})")
