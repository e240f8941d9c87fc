"""Options as an operator wrote them to the dataclass an engine takes, checked one by one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar, get_type_hints

import msgspec

from engines.errors import InvalidOption

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)


def read_options(cls: type[T], given: Mapping[str, object]) -> T:
    """Build the options of an engine from values as they stand in TOML or JSON.

    Raises `InvalidOption` for a key that is no field of `cls`, for a value of another type
    (`"2"` is no number) and for one that `cls` itself refuses.
    """
    types = get_type_hints(cls)
    known = [field.name for field in fields(cls)]
    values = {}
    for name, value in given.items():
        if name not in known:
            raise InvalidOption(name, _unknown(name, known))
        try:
            values[name] = msgspec.convert(value, types[name])
        except msgspec.ValidationError as error:
            raise InvalidOption(name, str(error)) from error
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise InvalidOption("", str(error)) from error


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? Known are" if close else "known are"
    return f"there is no such option; {hint} {', '.join(known)}"
