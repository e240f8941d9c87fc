"""What a conversation remembers, and its commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from server.cli.client import ChatParams, Client, ClientError
from server.cli.conversation import HELP, Conversation, Leave
from tests.server.cli.scripted import (
    ScriptedServer,
    chunk,
    event,
    gated,
    reply_json,
    send_raw,
)


@pytest.fixture
def conversation(server: ScriptedServer) -> Iterator[Conversation]:
    with Client(server.url) as client:
        yield Conversation(client, ChatParams("tiny"))


def ask(conversation: Conversation, prompt: str) -> str:
    return "".join(chunk.text for chunk in conversation.ask(prompt))


def test_a_turn_sends_the_history(conversation: Conversation, server: ScriptedServer) -> None:
    conversation.system = "Be brief."
    ask(conversation, "one")
    ask(conversation, "two")
    assert server.chats[-1].messages == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "You said: one"),
        ("user", "two"),
    ]


@pytest.mark.parametrize(
    "reply",
    [
        reply_json({"error": {"message": "No."}}, status=500),
        send_raw(event(chunk("half an answer"))),
        send_raw(event(chunk("half")), event({"error": {"message": "crashed"}})),
    ],
)
def test_a_failed_turn_is_taken_back(
    conversation: Conversation, server: ScriptedServer, reply: object
) -> None:
    ask(conversation, "before")
    server.answers.append(reply)  # type: ignore[arg-type]
    with pytest.raises(ClientError):
        ask(conversation, "fails")
    ask(conversation, "after")
    assert [text for _, text in server.chats[-1].messages] == [
        "before",
        "You said: before",
        "after",
    ]


def test_a_stopped_answer_stays(conversation: Conversation, server: ScriptedServer) -> None:
    server.answers.append(gated("one ", "two"))
    with closing(conversation.ask("count")) as chunks:
        next(chunks)
    assert conversation.turns == [
        {"role": "user", "content": "count"},
        {"role": "assistant", "content": "one "},
    ]


def test_ctrl_c_while_waiting_keeps_what_had_come(
    conversation: Conversation, server: ScriptedServer
) -> None:
    server.answers.append(gated("one ", "two"))
    with pytest.raises(KeyboardInterrupt), closing(conversation.ask("count")) as chunks:
        next(chunks)
        chunks.throw(KeyboardInterrupt)
    assert conversation.turns[-1]["content"] == "one "


def test_a_turn_stopped_before_any_text_is_taken_back(
    conversation: Conversation, server: ScriptedServer
) -> None:
    server.answers.append(gated("", "two"))
    with closing(conversation.ask("count")) as chunks:
        next(chunks)
    assert conversation.turns == []


def test_reset_keeps_the_system_message(conversation: Conversation) -> None:
    conversation.command("/system Be brief.")
    ask(conversation, "one")
    assert "anew" in (conversation.command("/reset") or "")
    assert conversation.messages() == [{"role": "system", "content": "Be brief."}]


def test_system_sets_shows_and_removes(conversation: Conversation) -> None:
    assert conversation.command("/system") == "There is no system message."
    assert conversation.command("/system  Two\nlines. ") == "System message: Two\nlines."
    assert conversation.command("/system") == "System message: Two\nlines."
    assert conversation.command('/system ""') == "There is no system message."
    assert conversation.messages() == []


def test_model_switches_and_shows(conversation: Conversation, server: ScriptedServer) -> None:
    assert conversation.command("/model") == "Model: tiny"
    assert conversation.command("/model org/big") == "Model: org/big"
    ask(conversation, "one")
    assert server.chats[-1].body["model"] == "org/big"


@pytest.mark.parametrize("word", ["/exit", "/quit", "/bye", " /exit "])
def test_exit_leaves(conversation: Conversation, word: str) -> None:
    with pytest.raises(Leave):
        conversation.command(word)


def test_help_names_every_command(conversation: Conversation) -> None:
    assert conversation.command("/help") == HELP
    for name in ("/system", "/model", "/reset", "/help", "/exit", "Ctrl-D", "Ctrl-C"):
        assert name in HELP


def test_a_misspelt_command_is_told(conversation: Conversation) -> None:
    assert conversation.command("/rest") == "There is no command /rest: see /help."


@pytest.mark.parametrize("message", ["hello", "/etc/hosts is empty", "/", "// why", "a /reset"])
def test_other_text_is_a_message(conversation: Conversation, message: str) -> None:
    assert conversation.command(message) is None
