from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adapters.conversations import filled
from tests.adapters.conversation import Conversation


def payload(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_filled() -> None:
    messages = payload(("system", "A."), ("human", "Hi"), ("ai", "Yo"), ("system", "B."))
    prompt = filled(Conversation(), messages).get_prompt()
    assert prompt == "<s>A.B. USER: Hi ASSISTANT: Yo</s> ASSISTANT:"


def test_the_template_s_own_system_text_stays_without_another() -> None:
    prompt = filled(Conversation(), payload(("human", "Hi"))).get_prompt()
    assert prompt == "<s>S. USER: Hi ASSISTANT:"


def test_messages_may_be_objects() -> None:
    messages = [SimpleNamespace(role="human", content="Hi")]
    assert "USER: Hi" in filled(Conversation(), messages).get_prompt()


def test_fastchat_s_name_for_the_system() -> None:
    class FastChats(Conversation):
        update_system_message: Any = property()

        def set_system_message(self, system: str) -> None:
            self.system = system

    assert filled(FastChats(), payload(("system", "A."))).get_prompt() == "<s>A. ASSISTANT:"


def test_an_unknown_role() -> None:
    with pytest.raises(ValueError, match="unknown role 'robot'"):
        filled(Conversation(), payload(("robot", "Hi")))
