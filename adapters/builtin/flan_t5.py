"""Flan-T5 (google/flan-t5-*): an encoder that reads a task, a decoder that writes the result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.builtin.family import FamilyChatAdapter, FamilyLLMAdapter
from adapters.loading import load_pretrained
from adapters.prompts import flat, refuse_tools
from adapters.registry import chat_adapters, llm_adapters
from engines.types import Message, ModelDescription, PartsPrompt, Special, Text, Tool

EOS = Special("</s>")
NAMES = re.compile(r"(?<![a-z0-9])flan-?t5(?![0-9])")


@llm_adapters.register
class FlanT5LLMAdapter(FamilyLLMAdapter):
    """Loads an encoder and its decoder, which transformers alone runs."""

    name = "flan-t5"
    names = NAMES
    engine = "transformers"

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load a sequence-to-sequence model."""
        return load_pretrained(
            model_path, from_pretrained_kwargs, model_class="AutoModelForSeq2SeqLM"
        )


@chat_adapters.register
class FlanT5ChatAdapter(FamilyChatAdapter):
    """The texts of a chat one below the other, then `</s>`: T5 knows no chat.

    Source: google/flan-t5-base's model card for one text; how several are put together is our
    own rule. The prompt is the encoder's; the decoder starts with its padding token, which is
    the engine's business. The card generates greedily.
    """

    name = "flan-t5"
    names = NAMES
    architectures = frozenset({"t5"})
    sampling_defaults: Mapping[str, float] = {"temperature": 0.0}

    def match_files(self, model: ModelDescription) -> bool:
        """Match any T5: none has another form."""
        return model.architecture in self.architectures

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the encoder's text. Raises `UnsupportedChat` for tools."""
        refuse_tools(messages, tools)
        return PartsPrompt((Text(flat(messages)), EOS), add_bos=False, stop_tokens=(EOS.token,))
