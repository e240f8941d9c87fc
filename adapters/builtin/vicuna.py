"""Vicuna (lmsys/vicuna-*): LLaMA tuned on shared conversations, in two generations of prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.base import BaseChatAdapter
from adapters.builtin.family import FamilyChatAdapter, FamilyLLMAdapter, telling_names
from adapters.builtin.vicuna_v0 import VicunaV0ChatAdapter
from adapters.loading import load_pretrained
from adapters.prompts import turns
from adapters.registry import chat_adapters, llm_adapters
from engines.types import Message, ModelDescription, PartsPrompt, Special, Tool

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
# Not those that only have it in their name: another family's prompt is theirs.
NAMES = re.compile(r"^(?!.*(?:stable|gpt4-?x|llava|minigpt))(?:.*[^a-z0-9])?vicuna(?![a-z])")
V0_VOCAB_SIZE = 32001
"""Token ids of the first release, which added one; all later ones have LLaMA's 32000."""

_VERSION = re.compile(r"(?<![a-z0-9])v([01])(?![0-9])")


@llm_adapters.register
class VicunaLLMAdapter(FamilyLLMAdapter):
    """Loads LLaMA weights."""

    names = NAMES

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load with the tokenizer that FastChat trained with, the slow one where there are two."""
        return load_pretrained(
            model_path, from_pretrained_kwargs, tokenizer_options={"use_fast": False}
        )


@chat_adapters.register
class VicunaV1ChatAdapter(FamilyChatAdapter):
    """Vicuna v1.1, v1.3 and v1.5: `system USER: question ASSISTANT: answer</s>USER: …`.

    No line ends, no blank behind `</s>`. Source: FastChat 0.2.36, template `vicuna_v1.1`; the
    temperature is that of its API. The tokenizer it trained with put a "▁" behind `</s>` too.
    """

    name = "vicuna-v1"
    architectures = frozenset({"llama"})
    sampling_defaults: Mapping[str, float] = {"temperature": 0.7}

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the turns. Raises `UnsupportedChat` for tools."""
        return turns(
            messages,
            tools,
            user="USER",
            assistant="ASSISTANT",
            system=SYSTEM,
            end=" ",
            answer_end=Special("</s>"),
        )


@chat_adapters.register
class VicunaChatAdapter(VicunaV1ChatAdapter):
    """Picks the form by the model's release."""

    name = "vicuna"
    names = NAMES

    def form_for(self, model: ModelDescription) -> BaseChatAdapter:
        """Tell the first release by its name or, if that has no version, by its vocabulary."""
        versions = (found[1] for name in telling_names(model) if (found := _VERSION.search(name)))
        version = next(versions, "0" if model.vocab_size == V0_VOCAB_SIZE else "1")
        return VicunaV0ChatAdapter() if version == "0" else self
