"""Gorilla (gorilla-llm/gorilla-*): writes calls of APIs; tuned from LLaMA, MPT and Falcon."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adapters.base import BaseChatAdapter
from adapters.builtin.falcon import ARCHITECTURES as FALCON
from adapters.builtin.family import (
    FamilyChatAdapter,
    FamilyLLMAdapter,
    has_special,
    telling_names,
)
from adapters.builtin.vicuna import SYSTEM
from adapters.loading import load_falcon, load_pretrained, model_type
from adapters.prompts import join_texts, split_system, turns
from adapters.registry import chat_adapters, llm_adapters
from engines.types import Message, ModelDescription, PartsPrompt, Special, Text, Tool

# OpenFunctions has a form for functions, another with each version.
NAMES = re.compile(r"(?<![a-z0-9])gorilla(?![a-z])(?!.*open-?functions)")
END_OF_TEXT, IM_END = Special("<|endoftext|>"), Special("<|im_end|>")
MPT_SYSTEM = """\
system
- You are a helpful assistant chatbot trained by MosaicML.
- You answer questions.
- You are excited to be able to help the user, but will refuse to do anything that could be \
considered harmful to the user.
- You are more than just an information source, you are also able to write poetry, short \
stories, and make jokes.
"""


@llm_adapters.register
class GorillaLLMAdapter(FamilyLLMAdapter):
    """Loads whichever model it was tuned from, without that one's own code."""

    names = NAMES

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load; the padding token of the Falcon one is that of Gorilla's own program."""
        if model_type(model_path) in FALCON:
            return load_falcon(model_path, from_pretrained_kwargs, pad_token_id=11)
        return load_pretrained(model_path, from_pretrained_kwargs)


class _GorillaForm(FamilyChatAdapter):
    """One of the forms; source: ShishirPatil/gorilla, inference/serve/conv_template.py."""

    architectures = frozenset({"llama", "mpt"}) | FALCON


@chat_adapters.register
class GorillaFalconChatAdapter(_GorillaForm):
    """` User: question Assistant: answer<|endoftext|>User: …`, a blank in front."""

    name = "gorilla-falcon"

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the turns. Raises `UnsupportedChat` for tools."""
        prompt = turns(
            messages, tools, user="User", assistant="Assistant", end=" ", answer_end=END_OF_TEXT
        )
        if not split_system(messages)[0]:
            prompt = replace(prompt, parts=join_texts((Text(" "), *prompt.parts)))
        return replace(prompt, add_bos=False)


@chat_adapters.register
class GorillaMptChatAdapter(_GorillaForm):
    """`system⏎… user⏎question assistant⏎answer user⏎…`, its blanks as the authors have them."""

    name = "gorilla-mpt"
    stop_tokens: tuple[str, ...] = (END_OF_TEXT.token,)

    def form_for(self, model: ModelDescription) -> BaseChatAdapter:
        """Stop at `<|im_end|>` too, if the vocabulary has it."""
        bound = type(self)()
        if has_special(model, IM_END.token):
            bound.stop_tokens = (END_OF_TEXT.token, IM_END.token)
        return bound

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the turns. Raises `UnsupportedChat` for tools."""
        given, rest = split_system(messages)
        chat = [Message("system", f"system\n{given}\n"), *rest] if given else rest
        prompt = turns(
            chat, tools, user="user", assistant="assistant", system=MPT_SYSTEM, label="\n", end=" "
        )
        return replace(prompt, add_bos=False, stop_tokens=self.stop_tokens)


@chat_adapters.register
class GorillaChatAdapter(_GorillaForm):
    """`system⏎USER: question⏎ASSISTANT: answer</s>USER: …` for those tuned from LLaMA.

    For the others the form of their own, by their files or else their names.
    """

    names = NAMES

    def form_for(self, model: ModelDescription) -> BaseChatAdapter:
        """Tell by the architecture, or by the name of a model without files."""
        name = " ".join(telling_names(model))
        if model.architecture in FALCON or (not model.architecture and "falcon" in name):
            return GorillaFalconChatAdapter()
        if model.architecture == "mpt" or (not model.architecture and "mpt" in name):
            return GorillaMptChatAdapter().form_for(model)
        return self

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the turns. Raises `UnsupportedChat` for tools."""
        return turns(
            messages,
            tools,
            user="USER",
            assistant="ASSISTANT",
            system=SYSTEM,
            answer_end=Special("</s>"),
        )
