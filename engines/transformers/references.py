"""Functions of other packages, named by strings: engines import no adapters.

`MODULE:NAME` or `MODULE:CLASS.METHOD`; the class is built without arguments. Instead of a module
there may be a Python file, `FILE.py#SHA256:NAME`: it is run if it still has that digest.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from engines.errors import ModelLoadError


def file_reference(file: Path, digest: str, name: str) -> str:
    """Return the reference to a name of a Python file with this sha256, in hex."""
    return f"{file}#{digest}:{name}"


def resolve(reference: str) -> Callable[..., Any]:
    """Return what a reference names. Raises `ModelLoadError`, and what the import raises."""
    place, _, name = reference.rpartition(":")
    file, separator, digest = place.rpartition("#")
    found: Any = _run(Path(file), digest) if separator else import_module(place)
    try:
        for part in name.split("."):
            # A method is one of an object: adapters have state, and defaults in `__init__`.
            found = getattr(found() if isinstance(found, type) else found, part)
    except AttributeError as error:
        raise ModelLoadError(f"{reference!r} does not exist: {error}") from error
    if not callable(found):
        raise ModelLoadError(f"{reference!r} is not a function")
    return found  # type: ignore[no-any-return]


def _run(file: Path, digest: str) -> ModuleType:
    """Run a file as a module. It must be the very one that the operator's process has read."""
    name = f"parlm_reference.{file.stem}_{digest[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    try:
        source = file.read_bytes()
    except OSError as error:
        raise ModelLoadError(f"{file} cannot be read: {error.strerror}") from error
    if hashlib.sha256(source).hexdigest() != digest:
        raise ModelLoadError(f"{file} has changed since the start: restart the server")
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses and pickling look classes up here
    exec(compile(source, str(file), "exec"), module.__dict__)  # noqa: S102
    return module
