"""A conversation as FastChat and DB-GPT had them, as small as adapters need it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Conversation:
    """`system·USER:·question·ASSISTANT:·answer</s>`"""

    system: str = "S."
    roles: tuple[str, str] = ("USER", "ASSISTANT")
    stop_str: str | None = "###"
    turns: list[tuple[str, str | None]] = field(default_factory=list)

    def copy(self) -> Self:
        return deepcopy(self)

    def update_system_message(self, system: str) -> None:
        self.system = system

    def append_message(self, role: str, content: str | None) -> None:
        self.turns.append((role, content))

    def get_prompt(self) -> str:
        prompt = f"<s>{self.system}"
        for role, content in self.turns:
            prompt += f" {role}:" if content is None else f" {role}: {content}"
            prompt += "</s>" if role == self.roles[1] and content else ""
        return prompt
