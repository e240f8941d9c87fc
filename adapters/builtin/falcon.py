"""Falcon (tiiuae/falcon-7b, -40b and -rw-*): the instruct models and the base models below them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adapters.base import BaseChatAdapter
from adapters.builtin.family import (
    FamilyChatAdapter,
    FamilyLLMAdapter,
    has_special,
    telling_names,
)
from adapters.loading import load_falcon
from adapters.parsing import OutputParser, PlainText
from adapters.prompts import flat, is_system, refuse_tools, turns
from adapters.registry import chat_adapters, llm_adapters
from engines.types import Message, ModelDescription, PartsPrompt, Special, Text, Tool

ARCHITECTURES = frozenset({"falcon", "RefinedWeb", "RefinedWebModel"})
EOS = Special("<|endoftext|>")
# Falcon 2, 3, H1, Mamba and 180B-chat have prompts of their own, which their files bring.
NAMES = re.compile(
    r"^(?:tiiuae-|thebloke-|ggml-)?falcon"
    r"(?:$|\.|-(?:rw-)?(?:1|7|40)b(?![a-z0-9])|-(?:instruct|base)(?![a-z]))(?!.*gorilla)"
)
# Titles, summaries, comments and the like, as the web pages of the training text had them.
MARKUP = (
    *(">>TITLE<<", ">>ABSTRACT<<", ">>INTRODUCTION<<", ">>SUMMARY<<", ">>COMMENT<<"),
    *(">>ANSWER<<", ">>QUESTION<<", ">>DOMAIN<<", ">>PREFIX<<", ">>SUFFIX<<", ">>MIDDLE<<"),
)


@llm_adapters.register
class FalconLLMAdapter(FamilyLLMAdapter):
    """Loads Falcon's weights, those of the first releases too, without their own code."""

    names = NAMES

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load with the padding token that FastChat sets."""
        return load_falcon(model_path, from_pretrained_kwargs, pad_token_id=9)


@chat_adapters.register
class FalconBaseChatAdapter(FamilyChatAdapter):
    """Falcon without chat tuning: it goes on with the texts of a chat as they are."""

    name = "falcon-base"
    architectures = ARCHITECTURES

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the texts one below the other. Raises `UnsupportedChat` for tools."""
        refuse_tools(messages, tools)
        return PartsPrompt((Text(flat(messages)),), add_bos=False, stop_tokens=(EOS.token,))

    def output_parser(self, tools: Sequence[Tool] = ()) -> OutputParser:  # noqa: ARG002
        """Leave a continuation as it is."""
        return PlainText()


@chat_adapters.register
class FalconInstructChatAdapter(FamilyChatAdapter):
    """`User: question⏎⏎Assistant: answer⏎⏎User: …⏎⏎Assistant:`, without BOS.

    Source: FastChat 0.2.36, template `falcon`, which takes blank lines out of messages in one
    pass. It sticks a system text to the first `User:`; here a blank line is between them.
    """

    name = "falcon-instruct"
    architectures = ARCHITECTURES
    stop_tokens: tuple[str, ...] = (EOS.token,)

    def form_for(self, model: ModelDescription) -> BaseChatAdapter:
        """Stop at the special tokens that mark parts of a page too, as FastChat does."""
        bound = type(self)()
        known = tuple(token for token in MARKUP if has_special(model, token))
        bound.stop_tokens = (EOS.token, *known)
        return bound

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the turns. Raises `UnsupportedChat` for tools."""
        packed = [_without_blank_lines(message) for message in messages]
        prompt = turns(
            packed, tools, user="User", assistant="Assistant", end="\n\n", stop=("\nUser",)
        )
        return replace(prompt, add_bos=False, stop_tokens=self.stop_tokens)


@chat_adapters.register
class FalconChatAdapter(FalconInstructChatAdapter):
    """Picks the form by the model's name: `falcon-40b` is a base model, `-instruct` says it."""

    name = "falcon"
    names = NAMES

    def form_for(self, model: ModelDescription) -> BaseChatAdapter:
        """Tell base weights by the first name that is of the family."""
        of_family = [name for name in telling_names(model) if NAMES.search(name)]
        if of_family and not re.search("instruct|chat", of_family[0]):
            return FalconBaseChatAdapter()
        return FalconInstructChatAdapter().form_for(model)


def _without_blank_lines(message: Message) -> Message:
    if is_system(message):
        return message
    content = message.content.replace("\r\n", "\n").replace("\n\n", "\n")
    return replace(message, content=content)
