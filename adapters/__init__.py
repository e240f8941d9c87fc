"""Adapt a chat to a family: which weights, which prompt, which stops. The extension API.

What an adapter of one's own needs is here; CONTRIBUTING.md shows how little that is.
"""

import warnings
from typing import Any

from adapters import inherited
from adapters.base import BaseChatAdapter, BaseLLMAdapter, GenerateStream
from adapters.errors import (
    AdapterError,
    AdapterFileError,
    AmbiguousAdapter,
    NoAdapter,
    TemplateError,
    UnknownAdapter,
    UnsupportedChat,
)
from adapters.generating import generate_stream
from adapters.inherited import (
    get_llm_chat_adapter,
    get_llm_model_adapter,
    llm_model_adapters,
    llm_model_chat_adapters,
    register_llm_model_adapters,
    register_llm_model_chat_adapter,
)
from adapters.parsing import Chain, OutputParser, ParsedEvent, PlainText
from adapters.prompts import chatml, refuse_tools, split_system, turns
from adapters.registry import Registry, chat_adapters, find_adapters, llm_adapters
from adapters.streams import from_cumulative
from adapters.tagged import TaggedReasoning, TaggedToolCalls
from adapters.user_files import load_file
from engines.types import Message, ModelDescription, PartsPrompt, Prompt, Special, Text, Tool

__all__ = [
    "AdapterError",
    "AdapterFileError",
    "AmbiguousAdapter",
    "BaseChatAdapter",
    "BaseLLMAdapter",
    "Chain",
    "GenerateStream",
    "Message",
    "ModelDescription",
    "NoAdapter",
    "OutputParser",
    "ParsedEvent",
    "PartsPrompt",
    "PlainText",
    "Prompt",
    "Registry",
    "Special",
    "TaggedReasoning",
    "TaggedToolCalls",
    "TemplateError",
    "Text",
    "Tool",
    "UnknownAdapter",
    "UnsupportedChat",
    "chat_adapters",
    "chatml",
    "find_adapters",
    "from_cumulative",
    "generate_stream",
    "get_llm_chat_adapter",
    "get_llm_model_adapter",
    "llm_adapters",
    "llm_model_adapters",
    "llm_model_chat_adapters",
    "load_file",
    "refuse_tools",
    "register_llm_model_adapters",
    "register_llm_model_chat_adapter",
    "split_system",
    "turns",
]

# Not in `__all__`: `from adapters import *` must not warn.
_OLD_SPELLINGS = {"BaseLLMAdaper": "BaseLLMAdapter", "BaseChatAdpter": "BaseChatAdapter"}


def __getattr__(name: str) -> Any:
    if name in inherited.FAMILY_CLASSES:
        return getattr(inherited, name)
    if name not in _OLD_SPELLINGS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"adapters.{name} is the old spelling of {_OLD_SPELLINGS[name]}, "
        "whose stream functions yield only new text",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(inherited, name)
