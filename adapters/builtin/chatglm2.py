"""ChatGLM2-6B (THUDM/chatglm2-6b), the second generation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.builtin.chatglm_text import break_rounds, fold_system
from adapters.builtin.family import FamilyChatAdapter, FamilyLLMAdapter
from adapters.filters import FilteredText, Replaced, Stripped
from adapters.loading import load_chatglm
from adapters.parsing import OutputParser
from adapters.prompts import refuse_tools
from adapters.registry import chat_adapters, llm_adapters
from engines.types import Message, PartsPrompt, Special, Text, Tool

GMASK, SOP, EOS = Special("[gMASK]"), Special("sop"), Special("</s>")
# ChatGLM3 and GLM-4 have another form, which their files bring.
NAMES = re.compile(r"(?<![a-z0-9])chatglm-?v?2(?![0-9])")


@llm_adapters.register
class ChatGLM2LLMAdapter(FamilyLLMAdapter):
    """Loads the weights into parlm's own model of the family, not their authors' code."""

    name = "chatglm2"
    names = NAMES

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load either generation: the files say which it is."""
        return load_chatglm(model_path, from_pretrained_kwargs)


@chat_adapters.register
class ChatGLM2ChatAdapter(FamilyChatAdapter):
    """`[gMASK]sop[Round 1]⏎⏎问：question⏎⏎答：answer⏎⏎[Round 2]⏎⏎…`, the first round too.

    Source: the authors' `build_prompt()` and `chat()`, which also gives the sampling. There is
    no system role: its text precedes the first question, as with the first generation.
    """

    name = "chatglm2"
    names = NAMES
    architectures = frozenset({"chatglm"})
    sampling_defaults: Mapping[str, float] = {"top_p": 0.8, "temperature": 0.8}

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the rounds. Raises `UnsupportedChat` for tools."""
        refuse_tools(messages, tools)
        written = ""
        for number, (question, answer) in enumerate(fold_system(messages), start=1):
            written += f"[Round {number}]\n\n问：{break_rounds(question)}\n\n答："
            if answer is not None:
                written += f"{break_rounds(answer)}\n\n"
        return PartsPrompt((GMASK, SOP, Text(written)), False, stop_tokens=(EOS.token,))

    def output_parser(self, tools: Sequence[Tool] = ()) -> OutputParser:  # noqa: ARG002
        """Do to the answer what the authors' `process_response` does."""
        return FilteredText(Stripped(all_leading=True), Replaced("[[训练时间]]", "2023年"))
