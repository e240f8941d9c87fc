"""The recorded prompts of the families' authors and first servers, and which of them are ours.

A prompt there carries no BOS: `bos` says what stands around the text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engines.types import Message, PartsPrompt, Special

_FILE = Path(__file__).parent / "golden_prompts.json"
ENTRIES: list[dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))

TARGETS = {
    **dict.fromkeys([*range(6), 43], "vicuna"),
    **{6: "vicuna-v0", 7: "vicuna-v0-zero-shot"},
    **dict.fromkeys([8, 9, 10, 12], "chatglm"),
    **dict.fromkeys([13, 14, 15], "chatglm2"),
    **dict.fromkeys([16, 17], "flan-t5"),
    **dict.fromkeys([18, 19], "guanaco"),
    **{21: "falcon-instruct", 22: "falcon-instruct", 23: "falcon-instruct", 24: "falcon-base"},
    **{25: "gorilla", 26: "gorilla", 29: "gorilla-falcon", 30: "gorilla-mpt"},
    **dict.fromkeys(range(31, 37), "llama-2"),
    **{37: "llama-2-base", 41: "gptj"},
}
"""Number of an entry -> the adapter that writes it."""

OTHERS = {
    11: "FastChat writes a first question otherwise than the authors",
    20: "the authors' example of one question; FastChat's form knows conversations",
    27: "the authors' batch evaluation of one question",
    28: "the authors' example of one question; their program knows conversations",
    38: "DB-GPT v0.3.2 as it was: BOS twice, a blank missing",
    39: "the Python binding's form, with the indentation of its source in it",
    40: "the Python binding's form, which writes later questions without a label",
    42: "the training's form of one question",
}
"""Number of an entry -> why its form is not the one used."""


def messages_of(entry: dict[str, Any]) -> list[Message]:
    return [Message(m["role"], m["content"]) for m in entry["messages"]]


def inner_text(prompt: PartsPrompt) -> str:
    """The text without the special tokens at both ends."""
    parts = list(prompt.parts)
    while parts and isinstance(parts[0], Special):
        parts.pop(0)
    while parts and isinstance(parts[-1], Special):
        parts.pop()
    return PartsPrompt(tuple(parts)).text
