"""The names and behaviour of DB-GPT's adapter API, so that what was written for it still works.

There (v0.3.2, `pilot/model/adapter.py` and `pilot/server/chat_adapter.py`) the base classes were
misspelt, and a generate function yielded the text so far. A class on an old spelling is taken to
do that too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import PurePath
from typing import Any, ClassVar

from adapters.base import BaseChatAdapter, BaseLLMAdapter, GenerateStream
from adapters.registry import C, chat_adapters, llm_adapters
from adapters.streams import CumulativeStream, from_cumulative

llm_model_adapters = llm_adapters.adapters
"""The registered load adapters; appending one registers it."""

llm_model_chat_adapters = chat_adapters.adapters
"""The registered chat adapters; appending one registers it."""


class BaseLLMAdaper(BaseLLMAdapter):
    """`BaseLLMAdapter` as it was spelt."""


class BaseChatAdpter(BaseChatAdapter):
    """`BaseChatAdapter` as it was spelt; its generate functions yield the text so far.

    `echoes_prompt` says that theirs begins with the prompt (see `from_cumulative`).
    """

    echoes_prompt: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        original = cls.__dict__.get("get_generate_stream_func")
        if original is not None:
            wrapped = _incremental(original)
            cls.get_generate_stream_func = wrapped  # type: ignore[method-assign, assignment]


def _incremental(
    original: Callable[[BaseChatAdpter], CumulativeStream | None],
) -> Callable[[BaseChatAdpter], GenerateStream | None]:
    def get_generate_stream_func(self: BaseChatAdpter) -> GenerateStream | None:
        func = original(self)
        return func and from_cumulative(func, echoes_prompt=self.echoes_prompt)

    return wraps(original)(get_generate_stream_func)


def register_llm_model_adapters(adapter_class: C) -> C:
    """Register a load adapter by its class."""
    return llm_adapters.register(adapter_class)


def register_llm_model_chat_adapter(adapter_class: C) -> C:
    """Register a chat adapter by its class."""
    return chat_adapters.register(adapter_class)


def get_llm_model_adapter(model_path: str) -> BaseLLMAdapter:
    """Return the load adapter for a path. Raises `NoAdapter` or `AmbiguousAdapter`."""
    return llm_adapters.resolve(PurePath(model_path).name, model_path)


def get_llm_chat_adapter(model_path: str) -> BaseChatAdapter:
    """Return the chat adapter for a path. Raises `NoAdapter` or `AmbiguousAdapter`."""
    return chat_adapters.resolve(PurePath(model_path).name, model_path)
