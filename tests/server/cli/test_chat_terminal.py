"""The real `parlm chat` in a terminal, against a server that sends only when told to."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.server.cli.scripted import ScriptedServer, gated, reply_json

PARLM = Path(sys.executable).parent / "parlm"
ENVIRONMENT = {
    "TERM": "xterm-256color",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    # The test's terminal does not answer the question where its cursor is.
    "PROMPT_TOOLKIT_NO_CPR": "1",
}


class Terminal:
    """A terminal with `parlm chat` in it. Escape sequences are no part of what is expected."""

    def __init__(self, url: str, folder: Path) -> None:
        arguments = ["chat", "--base-url", url]
        self.child = pexpect.spawn(
            str(PARLM),
            arguments,
            cwd=str(folder),
            env=ENVIRONMENT,
            encoding="utf-8",
            timeout=60,  # a busy machine takes seconds to start the program
            dimensions=(40, 120),
        )

    def expect(self, text: str) -> str:
        """Wait for `text`; return what was shown before it."""
        self.child.expect_exact(text)
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.child.before)

    def expect_prompt(self, mark: str = ">") -> None:
        """Wait until a line can be typed: bracketed paste is on and the cursor is shown."""
        self.child.expect(rf"(?s)\x1b\[\?2004h.*?{re.escape(mark)}.*?\x1b\[\?25h")

    def say(self, line: str, mark: str = ">") -> None:
        self.expect_prompt(mark)
        self.child.sendline(line)

    def leave(self) -> int:
        """Press Ctrl-D at the prompt; return the exit code."""
        self.expect_prompt()
        self.child.sendeof()
        self.child.expect(pexpect.EOF)
        self.child.close()
        status: int = self.child.exitstatus
        return status


@pytest.fixture
def terminal(server: ScriptedServer, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(server.url, tmp_path)
    yield terminal
    terminal.child.close(force=True)


def test_an_answer_shows_up_piece_by_piece(server: ScriptedServer, terminal: Terminal) -> None:
    server.answers.append(gated("first ", "second ", "third"))
    terminal.say("count")
    terminal.expect("first ")
    # Nothing more is sent before the gate opens, so each piece was shown before the next.
    server.release()
    assert "third" not in terminal.expect("second ")
    server.release()
    terminal.expect("third")
    server.release()
    assert terminal.leave() == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(
    server: ScriptedServer, terminal: Terminal
) -> None:
    server.answers.append(gated("first ", "second "))
    terminal.say("count")
    terminal.expect("first ")
    terminal.child.sendintr()
    terminal.expect("(stopped)")
    assert server.has_lost_client.wait(5)
    terminal.say("go on")
    terminal.expect("You said: go on")
    assert server.chats[-1].messages == [
        ("user", "count"),
        ("assistant", "first "),
        ("user", "go on"),
    ]
    assert terminal.leave() == 0


def test_ctrl_c_before_the_first_token(server: ScriptedServer, terminal: Terminal) -> None:
    server.answers.append(gated("", "late"))
    terminal.say("count")
    terminal.expect("waiting for the answer")
    terminal.child.sendintr()
    terminal.expect("(stopped)")
    terminal.say("again")
    terminal.expect("You said: again")
    assert server.chats[-1].messages == [("user", "again")]
    assert terminal.leave() == 0


def test_many_ctrl_c_do_not_kill_the_program(server: ScriptedServer, terminal: Terminal) -> None:
    server.answers.append(gated("first ", "second "))
    terminal.say("count")
    terminal.expect("first ")
    for _ in range(20):
        terminal.child.sendintr()
    terminal.expect("(stopped)")
    terminal.say("alive?")
    terminal.expect("You said: alive?")
    assert terminal.leave() == 0


def test_ctrl_c_at_the_prompt_clears_the_line_and_hints(
    server: ScriptedServer, terminal: Terminal
) -> None:
    terminal.expect_prompt()
    terminal.child.send("never sent")
    terminal.expect("never sent")
    terminal.child.sendintr()
    terminal.expect("(Ctrl-D leaves)")
    terminal.say("sent")
    terminal.expect("You said: sent")
    assert [chat.messages[-1][1] for chat in server.chats] == ["sent"]
    assert terminal.leave() == 0


def test_system_and_reset(server: ScriptedServer, terminal: Terminal) -> None:
    terminal.say("/system Be brief.")
    terminal.expect("System message: Be brief.")
    terminal.say("one")
    terminal.expect("You said: one")
    terminal.say("/reset")
    terminal.expect("anew")
    terminal.say("two")
    terminal.expect("You said: two")
    assert server.chats[0].messages == [("system", "Be brief."), ("user", "one")]
    assert server.chats[1].messages == [("system", "Be brief."), ("user", "two")]
    assert terminal.leave() == 0


def test_a_message_of_several_lines(server: ScriptedServer, terminal: Terminal) -> None:
    terminal.say('"""one')
    terminal.say('two"""', mark=".")
    terminal.expect("You said: one")
    terminal.say("three\\")
    terminal.say("four", mark=".")
    terminal.expect("You said: three")
    assert [chat.messages[-1][1] for chat in server.chats] == ["one\ntwo", "three\nfour"]
    assert terminal.leave() == 0


def test_an_error_is_told_and_the_turn_taken_back(
    server: ScriptedServer, terminal: Terminal
) -> None:
    error = {"error": {"message": "Too long.", "code": "context_length_exceeded"}}
    server.answers.append(reply_json(error, status=400))
    terminal.say("long")
    terminal.expect("400 context_length_exceeded: Too long.")
    terminal.say("short")
    terminal.expect("You said: short")
    assert server.chats[-1].messages == [("user", "short")]
    assert terminal.leave() == 0


def test_exit(terminal: Terminal) -> None:
    terminal.say("/exit")
    terminal.child.expect(pexpect.EOF)
    terminal.child.close()
    assert terminal.child.exitstatus == 0
