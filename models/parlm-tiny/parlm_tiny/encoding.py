"""The tokenizer and how conversations become token ids."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from parlm_tiny.items import Conversation, Message, Tool

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (PAD, START, END)
PAD_ID, START_ID, END_ID = 0, 1, 2

CHAT_TEMPLATE = (
    "{%- set system = messages[0].content if messages and messages[0].role == 'system' else '' -%}"
    "{%- if system or tools -%}"
    "<|im_start|>system\n{{ system }}"
    "{%- if tools -%}"
    "{%- if system %}{{ '\\n\\n' }}{% endif -%}"
    "Tools:"
    "{%- for tool in tools %}{{ '\\n' + (tool.function | tojson) }}{% endfor -%}"
    "{%- endif -%}"
    "<|im_end|>{{ '\\n' }}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if message.role != 'system' -%}"
    "<|im_start|>{{ message.role }}{{ '\\n' }}"
    "{{ message.content or '' }}"
    "{%- if message.tool_calls -%}"
    "{%- for call in message.tool_calls -%}"
    "{%- if not loop.first or message.content %}{{ '\\n' }}{% endif -%}"
    '<tool_call>{{ \'\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ call.function.arguments if call.function.arguments is string"
    " else (call.function.arguments | tojson) }}"
    "{{ '}\\n' }}</tool_call>"
    "{%- endfor -%}"
    "{%- endif -%}"
    "<|im_end|>{{ '\\n' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\\n' }}{%- endif -%}"
)
"""ChatML with the tools' JSON in the system turn; ``message.tool_calls`` become text again."""


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE in which each digit is its own token.

    The pre-tokenizer is the one that llama.cpp calls ``smollm``.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer from its ``tokenizer.json``."""
    return Tokenizer.from_file(str(path))


def system_text(system: str, tools: tuple[Tool, ...]) -> str:
    """The system turn's content: the client's text, then one line of JSON for each tool."""
    parts = [system] if system else []
    if tools:
        lines = [json.dumps(tool, ensure_ascii=False) for tool in tools]
        parts.append("\n".join(["Tools:", *lines]))
    return "\n\n".join(parts)


def turns_of(conversation: Conversation) -> list[Message]:
    """All turns, the system turn first if there is one."""
    system = system_text(conversation.system, conversation.tools)
    return [*([Message("system", system)] if system else []), *conversation.messages]


@dataclass(frozen=True)
class Encoded:
    """Token ids and, for each, whether the assistant wrote it."""

    ids: list[int]
    written: list[bool]


class Encoder:
    """Encodes conversations span by span, as a server does.

    A role's literal text and a message's content are encoded separately, and text never gives
    special tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        tokenizer.encode_special_tokens = True
        self._roles = {
            role: self.text(f"{role}\n") for role in ("system", "user", "assistant", "tool")
        }
        self._newline = self.text("\n")

    def text(self, text: str) -> list[int]:
        """Token ids of ordinary text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def conversation(self, conversation: Conversation) -> Encoded:
        """A whole conversation; the assistant's contents and their ends are marked."""
        ids: list[int] = []
        written: list[bool] = []
        for turn in turns_of(conversation):
            head = [START_ID, *self._roles[turn.role]]
            body = [*self.text(turn.content), END_ID]
            ids += head + body + self._newline
            written += [False] * len(head) + [turn.role == "assistant"] * len(body)
            written += [False] * len(self._newline)
        return Encoded(ids, written)

    def prompt(self, conversation: Conversation) -> list[int]:
        """A conversation followed by the head of the assistant's turn."""
        return [*self.conversation(conversation).ids, START_ID, *self._roles["assistant"]]

    def decode(self, ids: list[int]) -> str:
        """Text of ordinary tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text
