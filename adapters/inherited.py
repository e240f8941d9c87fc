"""The names and behaviour of DB-GPT's adapter API, so that what was written for it still works.

There (v0.3.2, `pilot/model/adapter.py` and `pilot/server/chat_adapter.py`) the base classes were
misspelt, and a generate function yielded the text so far. A class on an old spelling is taken to
do that too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import wraps
from importlib import import_module
from pathlib import PurePath
from typing import Any, ClassVar

from adapters import pilot
from adapters.base import BaseChatAdapter, BaseLLMAdapter, GenerateStream
from adapters.conversations import OLD_ROLES, filled
from adapters.generating import generate_stream as generate_stream
from adapters.loading import default_device, load_pretrained
from adapters.marks import Marker
from adapters.prompts import refuse_tools
from adapters.registry import C, chat_adapters, llm_adapters
from adapters.streams import CumulativeStream, echo_length, from_cumulative
from engines.types import Message, ModelDescription, PartsPrompt, Prompt, Special, Tool

FAMILY_CLASSES = {
    **dict.fromkeys(("VicunaLLMAdapater", "VicunaLLMAdapter"), "vicuna:VicunaLLMAdapter"),
    **dict.fromkeys(("ChatGLMAdapater", "ChatGLMAdapter"), "chatglm:ChatGLMLLMAdapter"),
    **dict.fromkeys(("FalconAdapater", "FalconAdapter"), "falcon:FalconLLMAdapter"),
    "GuanacoAdapter": "guanaco:GuanacoLLMAdapter",
    "GorillaAdapter": "gorilla:GorillaLLMAdapter",
    "GPT4AllAdapter": "gptj:GPTJLLMAdapter",
    "Llama2Adapter": "llama2:Llama2LLMAdapter",
    "ProxyllmAdapter": "proxyllm:ProxyllmLLMAdapter",
    "VicunaChatAdapter": "vicuna:VicunaChatAdapter",
    "ChatGLMChatAdapter": "chatglm:ChatGLMChatAdapter",
    "GuanacoChatAdapter": "guanaco:GuanacoChatAdapter",
    "FalconChatAdapter": "falcon:FalconChatAdapter",
    "GorillaChatAdapter": "gorilla:GorillaChatAdapter",
    "GPT4AllChatAdapter": "gptj:GPTJChatAdapter",
    "Llama2ChatAdapter": "llama2:Llama2ChatAdapter",
    "ProxyllmChatAdapter": "proxyllm:ProxyllmChatAdapter",
}
"""What the classes of the families were called, misspelt and not -> where they are."""

llm_model_adapters = llm_adapters.adapters
"""The registered load adapters; appending one registers it."""

llm_model_chat_adapters = chat_adapters.adapters
"""The registered chat adapters; appending one registers it."""


class BaseLLMAdaper(BaseLLMAdapter):
    """`BaseLLMAdapter` as it was spelt, with the loading that its subclasses call by `super()`."""

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load a causal language model with its slow tokenizer, where there are two."""
        return load_pretrained(
            model_path, from_pretrained_kwargs, tokenizer_options={"use_fast": False}
        )


class BaseChatAdpter(BaseChatAdapter):
    """`BaseChatAdapter` as it was spelt; its generate functions yield the text so far.

    `echoes_prompt` says that theirs begins with the prompt (see `from_cumulative`).
    """

    echoes_prompt: ClassVar[bool] = False
    _special_tokens: tuple[str, ...] = ("<s>", "</s>")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        original = cls.__dict__.get("get_generate_stream_func")
        if original is not None:
            wrapped = _incremental(original)
            cls.get_generate_stream_func = wrapped  # type: ignore[assignment, method-assign]

    def get_conv_template(self) -> Any:
        """Return a conversation of FastChat's kind to write prompts with; None for the usual."""
        return None

    def model_adaptation(self, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Write the prompt of a payload's messages by `get_conv_template()`.

        Returns the payload with `prompt` and `stop` set, and the model's context, whose
        `prompt_echo_len_char` is the length of an echo of that prompt; -1, and the payload as it
        was, without a template or messages. The roles are `system`, `human` and `ai`; raises
        `ValueError` for another.
        """
        conversation = self.get_conv_template()
        if conversation is None or not params.get("messages"):
            return params, {"prompt_echo_len_char": -1}
        conversation = filled(conversation.copy(), params["messages"])
        prompt = conversation.get_prompt()
        adapted = {**params, "prompt": prompt, "stop": conversation.stop_str}
        return adapted, {"prompt_echo_len_char": echo_length(adapted)}

    def has_form(self) -> bool:
        """Tell whether there is a `render`, or a conversation in its place."""
        is_own = type(self).render is not BaseChatAdpter.render
        return is_own or self.get_conv_template() is not None

    def for_model(self, model: ModelDescription) -> BaseChatAdapter:
        """Return the adapter that knows the special tokens of this model."""
        if self.get_conv_template() is None:
            return super().for_model(model)
        bound = copy(self)
        bound._special_tokens = model.special_tokens or self._special_tokens
        return bound

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Prompt:
        """Write the chat by `get_conv_template()`, or as usual without one.

        The template's names of special tokens become those tokens; the messages' stay text.
        """
        if self.get_conv_template() is None:
            return super().render(messages, tools)
        refuse_tools(messages, tools)
        marker = Marker(self._special_tokens)
        spoken = [
            {"role": OLD_ROLES[message.role], "content": marker.mark(message.content)}
            for message in messages
        ]
        params, _ = self.model_adaptation({"messages": spoken})
        parts = marker.split(params.get("prompt", ""))
        stop = params.get("stop") or ()
        return PartsPrompt(
            parts,
            add_bos=parts[:1] != (Special("<s>"),),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
        )


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


def __getattr__(name: str) -> Any:
    """Import a class of a family when it is asked for; `DEVICE` is what torch would compute on."""
    if name == "DEVICE":
        return default_device()
    if name not in FAMILY_CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, class_name = FAMILY_CLASSES[name].partition(":")
    return getattr(import_module(f"adapters.builtin.{module}"), class_name)


pilot.install()
