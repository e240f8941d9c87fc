"""Guanaco (timdettmers/guanaco-*-merged): LLaMA tuned with QLoRA on OpenAssistant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adapters.builtin.family import FamilyChatAdapter, FamilyLLMAdapter
from adapters.builtin.vicuna_v0 import human_turns
from adapters.loading import load_pretrained
from adapters.registry import chat_adapters, llm_adapters
from engines.types import Message, PartsPrompt, Special, Tool

BOS_ID = 1
# The authors' are LLaMA's; what others tuned from later ones has other prompts.
NAMES = re.compile(r"^(?!.*llama-?[23])(?:.*[^a-z0-9])?guanaco(?![a-z])")


@llm_adapters.register
class GuanacoLLMAdapter(FamilyLLMAdapter):
    """Loads merged LLaMA weights."""

    names = NAMES

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load, and put right the BOS and EOS ids, which some releases have wrong."""
        model, tokenizer = load_pretrained(model_path, from_pretrained_kwargs)
        tokenizer.bos_token_id = BOS_ID
        tokenizer.eos_token_id = model.config.eos_token_id
        return model, tokenizer


@chat_adapters.register
class GuanacoChatAdapter(FamilyChatAdapter):
    """`<s>system⏎### Human: question⏎### Assistant: answer⏎### Human: …`.

    Source: FastChat 0.2.36, GuanacoAdapter with the template `zero_shot`. The authors' own
    example for one question (qlora, examples/guanaco_generate.py) has blanks for line ends. BOS
    is written here, because the tokenizers of some releases leave it out or name another.
    """

    names = NAMES
    architectures = frozenset({"llama"})

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the turns. Raises `UnsupportedChat` for tools."""
        prompt = human_turns(messages, tools)
        return replace(prompt, parts=(Special("<s>"), *prompt.parts), add_bos=False)
