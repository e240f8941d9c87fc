"""Llama 2 (meta-llama/Llama-2-*): the chat models, and the base models below them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.base import BaseChatAdapter
from adapters.builtin.family import FamilyChatAdapter, FamilyLLMAdapter, telling_names
from adapters.errors import UnsupportedChat
from adapters.loading import load_pretrained
from adapters.parsing import OutputParser, PlainText
from adapters.prompts import flat, refuse_tools, rounds, split_system
from adapters.registry import chat_adapters, llm_adapters
from engines.types import Message, ModelDescription, PartsPrompt, Special, Text, Tool

log = logging.getLogger(__name__)

TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
BOS, EOS = Special("<s>"), Special("</s>")
# Meta's names begin so; "nous-hermes-llama2" and its like have prompts of their own.
NAMES = re.compile(
    r"^(?:meta-llama-|meta-|thebloke-|ggml-)?llama-?2(?![.0-9])"
    r"(?!.*(?:vicuna|guanaco|gorilla|orca|coder|32k))"
)


@llm_adapters.register
class Llama2LLMAdapter(FamilyLLMAdapter):
    """Loads Llama weights."""

    name = "llama-2"
    names = NAMES

    def loader(self, model_path: str, from_pretrained_kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Load; the tokenizer's EOS and padding ids count, as in DB-GPT's Llama2Adapter."""
        model, tokenizer = load_pretrained(model_path, from_pretrained_kwargs)
        model.config.eos_token_id = tokenizer.eos_token_id
        model.config.pad_token_id = tokenizer.pad_token_id
        return model, tokenizer


@chat_adapters.register
class Llama2BaseChatAdapter(FamilyChatAdapter):
    """Llama 2 without chat tuning: it goes on with the texts of a chat as they are."""

    name = "llama-2-base"
    architectures = frozenset({"llama"})

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the texts one below the other. Raises `UnsupportedChat` for tools."""
        refuse_tools(messages, tools)
        return PartsPrompt((Text(flat(messages)),), stop_tokens=(EOS.token,))

    def output_parser(self, tools: Sequence[Tool] = ()) -> OutputParser:  # noqa: ARG002
        """Leave a continuation as it is."""
        return PlainText()


@chat_adapters.register
class Llama2TunedChatAdapter(FamilyChatAdapter):
    """`[INST] <<SYS>>⏎system⏎<</SYS>>⏎⏎question [/INST] answer </s><s>[INST] …`.

    Source: meta-llama/llama, llama/generation.py at 689c7f26, where each round is tokenised for
    itself between real BOS and EOS. There is no system text unless the chat brings one. As
    there, a chat with the form's own tags in it is refused. Sampling is that of Meta's
    example_chat_completion.py.
    """

    name = "llama-2-chat"
    architectures = frozenset({"llama"})
    sampling_defaults: Mapping[str, float] = {"temperature": 0.6, "top_p": 0.9}

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> PartsPrompt:
        """Write the rounds. Raises `UnsupportedChat` for tools and for tags in a message."""
        refuse_tools(messages, tools)
        if any(tag in message.content for message in messages for tag in TAGS):
            raise UnsupportedChat(f"this model's prompts may not contain {', '.join(TAGS)}")
        system, rest = split_system(messages)
        instructions = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
        parts: list[Text | Special] = []
        for question, answer in rounds(rest):
            asked = f"[INST] {(instructions + question).strip()} [/INST]"
            instructions = ""
            if answer is None:
                parts.append(Text(asked))
            else:
                parts += [Text(f"{asked} {answer.strip()} "), EOS, BOS]
        return PartsPrompt(tuple(parts), stop_tokens=(EOS.token,))


@chat_adapters.register
class Llama2ChatAdapter(Llama2TunedChatAdapter):
    """Picks the form by the model's names: `llama-2-7b` alone means the chat weights, as in DB-GPT.

    Meta says `chat` in the names of those.
    """

    name = "llama-2"
    names = NAMES

    def form_for(self, model: ModelDescription) -> BaseChatAdapter:
        """Tell base weights by the name of their files, unless those bring Meta's template."""
        if "[INST]" in (model.chat_template or "") or not _is_base(telling_names(model)):
            return self
        log.info(
            "%s: base weights by the name of %s; set LLM_ADAPTER=llama-2-chat if they can chat",
            model.name,
            model.path or model.name,
        )
        return Llama2BaseChatAdapter()


def _is_base(names: Sequence[str]) -> bool:
    """Tell base weights by the first of their names that is of the family.

    A file's name that is not just the served one is taken at its word: `llama-2-7b.Q4_K_M.gguf`
    lies beside `llama-2-7b-chat.Q4_K_M.gguf`.
    """
    of_family = [name for name in names if NAMES.search(name)]
    if not of_family or "chat" in of_family[0]:
        return False
    if re.search(r"-(?:hf|base)(?![a-z])", of_family[0]):
        return True
    return len(of_family) > 1 and of_family[0].removesuffix(".gguf") != of_family[1]
