"""The errors of the adapters.

AdapterError
├── NoAdapter            nothing matches a model
├── AmbiguousAdapter     two adapters of equal priority match
├── UnknownAdapter       LLM_ADAPTER names one that is not registered
├── AdapterFileError     a file of a user's own adapters cannot be used
├── TemplateError        a model's chat template is broken or too slow
└── UnsupportedChat      the family has no form for this chat (a request error)
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class AdapterError(Exception):
    """Base of all errors an adapter raises."""


class NoAdapter(AdapterError):
    """Nothing matches a model."""

    def __init__(self, model: str) -> None:
        super().__init__(f"no adapter matches {model!r}; name one with LLM_ADAPTER")


class AmbiguousAdapter(AdapterError):
    """Two adapters of equal priority match."""

    def __init__(self, model: str, names: Sequence[str]) -> None:
        super().__init__(
            f"{' and '.join(names)} match {model!r} with equal priority; "
            "give one a higher `priority`, or name one with LLM_ADAPTER"
        )


class UnknownAdapter(AdapterError):
    """`LLM_ADAPTER` names an adapter that is not registered."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        close = get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        super().__init__(f"LLM_ADAPTER={name!r} is unknown; {hint}known: {', '.join(known)}")


class AdapterFileError(AdapterError):
    """A file of a user's own adapters is missing, writable by anyone, or fails on import."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"ADAPTER_FILES: {path}: {reason}")


class TemplateError(AdapterError):
    """A model's chat template is broken or too slow."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"the chat template of {model!r} does not work: {reason}")


class UnsupportedChat(AdapterError):
    """The family has no form for this chat. `param` is the wire name of the field at fault."""

    def __init__(self, message: str, param: str = "messages") -> None:
        super().__init__(message)
        self.param = param
