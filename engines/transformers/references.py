"""Functions of other packages, named by strings: engines import no adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from engines.errors import ModelLoadError


def resolve(reference: str) -> Callable[..., Any]:
    """Return what `MODULE:NAME` or `MODULE:CLASS.METHOD` names; a class is built first.

    Raises `ModelLoadError` for what does not exist.
    """
    place, _, name = reference.partition(":")
    try:
        found: Any = import_module(place)
        for part in name.split("."):
            # A method is one of an object: adapters may have state.
            found = getattr(found() if isinstance(found, type) else found, part)
    except ModuleNotFoundError as error:
        if error.name is None or not place.startswith(error.name):
            raise
        raise ModelLoadError(f"{reference!r}: there is no module {error.name!r}") from error
    except AttributeError as error:
        raise ModelLoadError(f"{reference!r} does not exist: {error}") from error
    if not callable(found):
        raise ModelLoadError(f"{reference!r} is not a function")
    return found  # type: ignore[no-any-return]


def run_first(calls: Iterable[tuple[str, str]]) -> None:
    """Call functions by reference, each with one text: what makes other references exist."""
    for reference, argument in calls:
        resolve(reference)(argument)
