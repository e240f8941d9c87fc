"""ChatGLM-6B (THUDM/chatglm-6b), the first generation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.base import BaseChatAdapter
from adapters.builtin.chatglm2 import ChatGLM2ChatAdapter
from adapters.builtin.chatglm_text import FullWidth, break_rounds, fold_system
from adapters.builtin.default import template_adapter
from adapters.builtin.family import FamilyChatAdapter, FamilyLLMAdapter
from adapters.filters import FilteredText, Replaced, Stripped
from adapters.loading import load_chatglm
from adapters.parsing import OutputParser
from adapters.prompts import refuse_tools
from adapters.registry import chat_adapters, llm_adapters
from engines.types import Message, ModelDescription, PartsPrompt, Special, Text, Tool

GMASK, SOP, EOP = Special("[gMASK]"), Special("<sop>"), Special("<eop>")
# The digit of later generations comes at once; `-6b` is a size.
NAMES = re.compile(r"(?<![a-z0-9])chatglm(?:-?6b|-?v?1(?![0-9])|(?!-?v?[0-9]))")
VOCAB_SIZES = frozenset({130528, 150528})
"""Token ids of the releases since and before 2023-04-06."""
LATER_VOCAB_SIZE = 65024
"""Token ids of ChatGLM2 and 3."""


@llm_adapters.register
class ChatGLMLLMAdapter(FamilyLLMAdapter):
    """Loads the weights into parlm's own model of the family, not their authors' code."""

    name = "chatglm"
    names = NAMES
    engine = "transformers"

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load either generation: the files say which it is."""
        return load_chatglm(model_path, from_pretrained_kwargs)


@chat_adapters.register
class ChatGLMChatAdapter(FamilyChatAdapter):
    """A first question is written bare; later, `[Round 0]⏎问：question⏎答：answer⏎[Round 1]⏎…`.

    Behind it stand `[gMASK]` and `<sop>`. Source: the authors' `chat()`, also for sampling and
    for what is done to answers; FastChat's form of a first question is another. There is no
    system role: as in DB-GPT v0.3.2, its text precedes the first question.
    """

    name = "chatglm"
    names = NAMES
    architectures = frozenset({"chatglm"})
    sampling_defaults: Mapping[str, float] = {"top_p": 0.7, "temperature": 0.95}

    def match_files(self, model: ModelDescription) -> bool:
        """Match the first generation's vocabularies."""
        return model.architecture in self.architectures and model.vocab_size in VOCAB_SIZES

    def form_for(self, model: ModelDescription) -> BaseChatAdapter:
        """Speak a later generation's form with what only bears the first one's name."""
        if model.vocab_size != LATER_VOCAB_SIZE:
            return self
        return template_adapter(model) if model.chat_template else ChatGLM2ChatAdapter()

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the rounds. Raises `UnsupportedChat` for tools."""
        refuse_tools(messages, tools)
        pairs = [(break_rounds(q), break_rounds(a or "")) for q, a in fold_system(messages)]
        last = pairs[-1][0]
        if len(pairs) > 1:
            written = [f"[Round {n}]\n问：{q}\n答：{a}\n" for n, (q, a) in enumerate(pairs[:-1])]
            last = f"{''.join(written)}[Round {len(pairs) - 1}]\n问：{last}\n答："
        return PartsPrompt((Text(last), GMASK, SOP), add_bos=False, stop_tokens=(EOP.token,))

    def output_parser(self, tools: Sequence[Tool] = ()) -> OutputParser:  # noqa: ARG002
        """Do to the answer what the authors' `process_response` does."""
        return FilteredText(
            Stripped(all_leading=True), Replaced("[[训练时间]]", "2023年"), FullWidth()
        )
