"""Which adapter serves a model: the most specific one that matches, never the first one."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import PurePath
from typing import Generic, TypeVar, cast

from adapters.base import Adapter, BaseChatAdapter, BaseLLMAdapter
from adapters.errors import AmbiguousAdapter, NoAdapter, UnknownAdapter

BUILTIN_PRIORITY = -10
"""The priority of the families that come with the project."""

DEFAULT_PRIORITY = -100
"""The priority of the adapters that match everything."""

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Adapter)
C = TypeVar("C", bound=type[Adapter])


class Registry(Generic[A]):
    """Adapters of one kind.

    `base` is the class they derive from. `group` names the entry points of installed plug-ins
    and `builtins` a module that registers the project's own; both load at the first look-up.
    """

    def __init__(self, base: type[A], group: str = "", builtins: str = "") -> None:
        self.adapters: list[A] = []
        self._base = base
        self._group = group
        self._builtins = builtins
        self._has_loaded = False

    def register(self, adapter_class: C) -> C:
        """Add one instance of a class; usable as a decorator. A second time changes nothing.

        Raises `TypeError` for a class of the other kind.
        """
        base: type[Adapter] = self._base
        if not issubclass(adapter_class, base):
            raise TypeError(f"{adapter_class.__name__} is not a {base.__name__}")
        if not any(type(adapter) is adapter_class for adapter in self.adapters):
            self.adapters.append(cast(A, adapter_class()))
        return adapter_class

    def resolve(self, model_name: str, model_path: str = "", *, builtin_only: bool = False) -> A:
        """Return the adapter for a model.

        The name is asked first, then the last part of the path, then the whole path: a folder
        named after another model must not decide. The default adapter is used when nothing
        else matches any of them. With `builtin_only` a user's own adapters are left out.

        Raises:
            AmbiguousAdapter: two of the same, highest priority match.
            NoAdapter: nothing matches.
        """
        self._load()
        fallback: A | None = None
        for text in (model_name, PurePath(model_path).name, model_path):
            found = self._best(text, builtin_only) if text else None
            if found is not None and found.priority > DEFAULT_PRIORITY:
                return found
            fallback = fallback or found
        if fallback is None:
            raise NoAdapter(model_name or model_path)
        return fallback

    def by_name(self, name: str) -> A:
        """Return the adapter that `LLM_ADAPTER` names; case, `-` and `_` do not matter.

        Among several of one name the highest priority wins.

        Raises:
            UnknownAdapter: there is none of that name; the error says which there are.
            AmbiguousAdapter: two of the same, highest priority have it.
        """
        self._load()
        found = [a for a in self.adapters if _plain(a.name) == _plain(name)]
        if not found:
            raise UnknownAdapter(name, self.names())
        return _highest(found, name)

    def names(self) -> list[str]:
        """Return the names of all adapters, sorted."""
        self._load()
        return sorted({adapter.name for adapter in self.adapters})

    def _best(self, text: str, builtin_only: bool) -> A | None:
        found = []
        for adapter in self.adapters:
            if builtin_only and adapter.priority > BUILTIN_PRIORITY:
                continue
            try:
                if adapter.match(text):
                    found.append(adapter)
            except Exception as error:
                error.add_note(f"raised by {type(adapter).__qualname__}.match({text!r})")
                raise
        return _highest(found, text) if found else None

    def _load(self) -> None:
        if self._has_loaded:
            return
        self._has_loaded = True
        if self._builtins:
            import_module(self._builtins)
        if self._group:
            for entry_point in entry_points(group=self._group):
                self._load_plugin(entry_point)

    def _load_plugin(self, entry_point: EntryPoint) -> None:
        """Register what an entry point names: an adapter class, or a module that registers its own.

        A broken plug-in must not keep the other models from starting.
        """
        try:
            loaded = entry_point.load()
            if isinstance(loaded, type):
                self.register(loaded)
        except Exception:
            log.exception("the plug-in %s = %s did not load", entry_point.name, entry_point.value)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _highest(found: list[A], asked: str) -> A:
    """Return the one of highest priority. Raises `AmbiguousAdapter` when two have it."""
    top = max(adapter.priority for adapter in found)
    best = [adapter for adapter in found if adapter.priority == top]
    if len(best) > 1:
        raise AmbiguousAdapter(asked, [_origin(adapter) for adapter in best])
    return best[0]


def _origin(adapter: Adapter) -> str:
    return f"{type(adapter).__module__}.{type(adapter).__qualname__}"


llm_adapters = Registry(BaseLLMAdapter, "parlm.llm_adapters", "adapters.builtin")
chat_adapters = Registry(BaseChatAdapter, "parlm.chat_adapters", "adapters.builtin")


def find_adapters(
    model_name: str, model_path: str = "", adapter: str | None = None
) -> tuple[BaseLLMAdapter, BaseChatAdapter]:
    """Return the load adapter and the chat adapter of a model, by `LLM_ADAPTER` if it is set.

    A family may have only one of the two: the other is then found by matching.
    Raises `UnknownAdapter`, `AmbiguousAdapter` or `NoAdapter`.
    """
    if not adapter:
        return (
            llm_adapters.resolve(model_name, model_path),
            chat_adapters.resolve(model_name, model_path),
        )
    named = [_named(llm_adapters, adapter), _named(chat_adapters, adapter)]
    if named == [None, None]:
        raise UnknownAdapter(adapter, sorted({*llm_adapters.names(), *chat_adapters.names()}))
    return (
        _named(llm_adapters, adapter) or llm_adapters.resolve(model_name, model_path),
        _named(chat_adapters, adapter) or chat_adapters.resolve(model_name, model_path),
    )


def _named(registry: Registry[A], name: str) -> A | None:
    try:
        return registry.by_name(name)
    except UnknownAdapter:
        return None
