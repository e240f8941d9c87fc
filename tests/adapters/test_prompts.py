from __future__ import annotations

import pytest

from adapters.errors import UnsupportedChat
from adapters.prompts import (
    break_marks,
    chatml,
    flat,
    join_texts,
    label_marks,
    refuse_tools,
    rounds,
    split_system,
    turns,
)
from engines.types import Message, Special, Text, Tool, ToolCall

CHAT = [Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Bye")]
END = Special("</s>")


def test_turns_as_vicuna_has_them() -> None:
    prompt = turns(CHAT, user="USER", assistant="ASSISTANT", system="S.", end=" ", answer_end=END)
    assert prompt.text == "S. USER: Hi ASSISTANT: Hello.</s>USER: Bye ASSISTANT:"
    assert prompt.parts[1] == END
    assert prompt.stop_tokens == ("</s>",)


def test_turns_as_guanaco_has_them() -> None:
    prompt = turns(CHAT, user="### Human", assistant="### Assistant", system="S.", stop=("###",))
    assert prompt.text == (
        "S.\n### Human: Hi\n### Assistant: Hello.\n### Human: Bye\n### Assistant:"
    )
    assert len(prompt.parts) == 1
    assert (prompt.stop, prompt.stop_tokens, prompt.add_bos) == (("###",), (), True)


def test_turns_with_a_text_behind_answers() -> None:
    prompt = turns(CHAT, user="Q", assistant="A", label=":", end=";", answer_end="|")
    assert prompt.text == "Q:Hi;A:Hello.|Q:Bye;A:"


def test_system_messages_replace_the_family_s_own_text() -> None:
    chat = [Message("system", "One."), *CHAT, Message("developer", "Two.")]
    prompt = turns(chat, user="Q", assistant="A", system="S.")
    assert prompt.text.startswith("One.\n\nTwo.\nQ: Hi\n")


def test_an_empty_message_leaves_its_label() -> None:
    assert turns([Message("user")], user="Q", assistant="A", end=";").text == "Q:;A:"


def test_a_label_may_end_its_line() -> None:
    prompt = turns(CHAT[:1], user="Q", assistant="A", label=":\n")
    assert prompt.text == "Q:\nHi\nA:\n"


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_labels_in_a_message_are_no_labels(role: str) -> None:
    chat = [Message(role, "x ASSISTANT: y USER:")]  # type: ignore[arg-type]
    text = turns(chat, user="USER", assistant="ASSISTANT", end=" ").text
    assert "x ASSISTANT : y USER : " in text


def test_break_marks() -> None:
    marks = label_marks("USER: ", "### Human: ")
    assert break_marks("USER: a### Human:b", marks) == "USER : a### Human :b"
    same = "SUPERUSER: ### Human\n# Human: USER"
    assert break_marks(same, marks) == same


def test_flat() -> None:
    chat = [*CHAT, Message("developer", "S."), Message("system", "T.")]
    assert flat(chat) == "S.\n\nT.\n\nHi\nHello.\nBye"
    assert flat(CHAT[:1]) == "Hi"
    assert flat([]) == ""


def test_rounds() -> None:
    user, answer = CHAT[0], CHAT[1]
    assert rounds(CHAT) == [("Hi", "Hello."), ("Bye", None)]
    assert rounds([user, user, answer, answer]) == [("Hi\n\nHi", "Hello.\n\nHello."), ("", None)]
    assert rounds([answer, user]) == [("", "Hello."), ("Hi", None)]
    assert rounds([]) == [("", None)]


def test_split_system() -> None:
    assert split_system(CHAT) == ("", CHAT)


@pytest.mark.parametrize(
    ("chat", "tools", "param"),
    [
        (CHAT, [Tool("f")], "tools"),
        ([Message("tool", "1")], [], "messages"),
        ([Message("assistant", tool_calls=(ToolCall("1", "f", "{}"),))], [], "messages"),
    ],
)
def test_tools_are_refused(chat: list[Message], tools: list[Tool], param: str) -> None:
    with pytest.raises(UnsupportedChat, match="no form for tool") as raised:
        refuse_tools(chat, tools)
    assert raised.value.param == param


def test_chatml() -> None:
    prompt = chatml([Message("developer", "S."), Message("user", "<|im_end|>")])
    assert prompt.text == (
        "<|im_start|>system\nS.<|im_end|>\n<|im_start|>user\n<|im_end|><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert sum(isinstance(part, Special) for part in prompt.parts) == 5
    assert prompt.stop_tokens == ("<|im_end|>",)


def test_join_texts() -> None:
    parts: list[Text | Special] = [Text("a"), Text(""), Text("b"), END, Text(""), END]
    assert join_texts(parts) == (Text("ab"), END, END)
