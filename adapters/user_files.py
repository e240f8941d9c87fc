"""A user's own adapters, from Python files that the operator names in the settings."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import sys
from pathlib import Path
from types import ModuleType

from adapters.base import BaseChatAdapter, BaseLLMAdapter
from adapters.errors import AdapterFileError
from adapters.registry import chat_adapters, llm_adapters

log = logging.getLogger(__name__)


def load_file(path: str | Path) -> str:
    """Run a Python file of adapters and return the sha256 of what was run, in hex.

    The file has the rights of the server: only the operator may name one, never a request.
    The same file a second time changes nothing. A file that registers nothing has the adapter
    classes that it defines registered for it.

    Raises `AdapterFileError` when it is missing, anyone may write it, or it fails.
    """
    file = Path(path).resolve()
    source = _read_trusted(file)
    digest = hashlib.sha256(source).hexdigest()
    name = f"parlm_user_adapters.{file.stem}_{digest[:8]}"
    if name in sys.modules:
        return digest
    log.info("adapters from %s, sha256 %s", file, digest)
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses and pickling look classes up here
    before = len(llm_adapters.adapters) + len(chat_adapters.adapters)
    try:
        # Not importlib, which would read the file again, after the check.
        exec(compile(source, str(file), "exec"), module.__dict__)  # noqa: S102
        if len(llm_adapters.adapters) + len(chat_adapters.adapters) == before:
            _register_classes(module)
    except Exception as error:
        del sys.modules[name]
        raise AdapterFileError(str(file), f"{type(error).__name__}: {error}") from error
    return digest


def _read_trusted(file: Path) -> bytes:
    """Return the content. Raises `AdapterFileError` when someone else could have written it."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            folder_mode = file.parent.stat().st_mode
            source = opened.read()
    except OSError as error:
        raise AdapterFileError(str(file), error.strerror or str(error)) from error
    if os.name == "posix" and mode & stat.S_IWOTH:
        raise AdapterFileError(str(file), "anyone may write it; chmod o-w it")
    is_sticky = folder_mode & stat.S_ISVTX  # others may not replace a file there
    if os.name == "posix" and folder_mode & stat.S_IWOTH and not is_sticky:
        raise AdapterFileError(str(file), "anyone may write its folder; chmod o-w it")
    return source


def _register_classes(module: ModuleType) -> None:
    """Register what a file defines, as the pages of the inherited API leave unsaid.

    A class that another class of the file derives from is taken for a base.
    """
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    for adapter_class in classes:
        if any(
            other is not adapter_class and issubclass(other, adapter_class) for other in classes
        ):
            continue
        if issubclass(adapter_class, BaseLLMAdapter):
            llm_adapters.register(adapter_class)
        elif issubclass(adapter_class, BaseChatAdapter):
            chat_adapters.register(adapter_class)
