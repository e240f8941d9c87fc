"""GPT4All-J (nomic-ai/gpt4all-j): GPT-J tuned on GPT-3.5's answers; DB-GPT's `gptj-6b`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from adapters.builtin.family import FamilyChatAdapter, FamilyLLMAdapter
from adapters.loading import load_pretrained
from adapters.prompts import turns
from adapters.registry import chat_adapters, llm_adapters
from engines.types import Message, PartsPrompt, Special, Tool

EOS = Special("<|endoftext|>")
# Not EleutherAI's "gpt-j-6b", which is a base model.
NAMES = re.compile(r"(?<![a-z0-9])(?:gptj|gpt4all-?j)(?![a-z])")


@llm_adapters.register
class GPTJLLMAdapter(FamilyLLMAdapter):
    """Loads floating-point weights: transformers has the architecture, llama.cpp has not."""

    name = "gptj"
    names = NAMES

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load a folder of safetensors."""
        return load_pretrained(model_path, from_pretrained_kwargs)


@chat_adapters.register
class GPTJChatAdapter(FamilyChatAdapter):
    """`### Human:⏎question⏎### Assistant:⏎answer⏎### Human:⏎…`, without BOS.

    Source: gpt4all-chat's default template of May to June 2023 (SettingsDialog.qml at fbe89214),
    the program most people used the model with. It has no system text; ours stands in front.
    """

    name = "gptj"
    names = NAMES
    architectures = frozenset({"gptj"})

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the turns. Raises `UnsupportedChat` for tools."""
        prompt = turns(
            messages,
            tools,
            user="### Human",
            assistant="### Assistant",
            label=":\n",
            stop=("### Human", "### Prompt"),
        )
        return replace(prompt, add_bos=False, stop_tokens=(EOS.token,))
