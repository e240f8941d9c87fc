from __future__ import annotations

import pytest

from adapters.builtin.llama2 import TAGS, Llama2BaseChatAdapter, Llama2ChatAdapter
from adapters.errors import UnsupportedChat
from adapters.parsing import PlainText
from engines.types import Message, Special, Text

adapter = Llama2ChatAdapter()
SYSTEM, USER, ANSWER = Message("system", "S."), Message("user", " Hi\n"), Message("assistant", "A ")


def test_rounds_stand_between_real_tokens() -> None:
    assert adapter.render([USER, ANSWER, USER]).parts == (
        Text("[INST] Hi [/INST] A "), Special("</s>"), Special("<s>"), Text("[INST] Hi [/INST]"),
    )  # fmt: skip


def test_blanks_are_stripped_as_by_meta() -> None:
    # Meta puts the system's text before the first question and strips both together.
    text = adapter.render([SYSTEM, USER]).text
    assert text == "[INST] <<SYS>>\nS.\n<</SYS>>\n\n Hi [/INST]"


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_the_form_s_own_tags_are_refused(tag: str, role: str) -> None:
    chat = [Message(role, f"a{tag}b"), USER]  # type: ignore[arg-type]
    with pytest.raises(UnsupportedChat, match=r"may not contain \[INST\]"):
        adapter.render(chat)


def test_tags_are_text_to_a_base_model() -> None:
    base = Llama2BaseChatAdapter()
    assert base.render([Message("user", "[INST]")]).text == "[INST]"
    assert isinstance(base.output_parser(), PlainText)


def test_roles_that_do_not_alternate() -> None:
    text = adapter.render([ANSWER, USER, USER, ANSWER]).text
    assert text == ("[INST]  [/INST] A </s><s>[INST] Hi\n\n\n Hi [/INST] A </s><s>[INST]  [/INST]")


def test_a_chat_without_a_question() -> None:
    assert adapter.render([SYSTEM]).text == "[INST] <<SYS>>\nS.\n<</SYS>> [/INST]"
    assert adapter.render([Message("system"), USER]).text == "[INST] Hi [/INST]"
