"""`parlm chat` without a terminal: one question, a pipe, JSON, errors."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.cli import app, terminal
from server.cli.chat import EX_INTERRUPTED, choose_model, interruptible
from server.cli.client import Client, ServerError
from tests.server.cli.scripted import (
    USAGE,
    Exchange,
    ScriptedServer,
    chunk,
    event,
    gated,
    reply_json,
    send_raw,
    stream,
)

Chat = Callable[..., Result]


@pytest.fixture
def chat(server: ScriptedServer) -> Chat:
    def run(*arguments: str, typed: str = "") -> Result:
        command = ["chat", "--base-url", server.url, *arguments]
        return CliRunner().invoke(app, command, input=typed)

    return run


def test_one_question(chat: Chat) -> None:
    result = chat("hello")
    assert (result.exit_code, result.stdout) == (0, "You said: hello\n")


def test_options_reach_the_server(chat: Chat, server: ScriptedServer) -> None:
    chat("hi", "--model", "m", "--system", "s", "--temperature", "0", "--max-tokens", "5")
    body = server.chats[0].body
    assert [body[key] for key in ("model", "temperature", "max_tokens")] == ["m", 0.0, 5]
    assert server.chats[0].messages == [("system", "s"), ("user", "hi")]


def test_the_first_model_is_the_default(chat: Chat, server: ScriptedServer) -> None:
    server.models = {"first": {}, "second": {}}
    chat("hi")
    assert server.chats[0].body["model"] == "first"


def test_json(chat: Chat) -> None:
    result = chat("hello é", "--json")
    assert json.loads(result.stdout) == {
        "content": "You said: hello é",
        "finish_reason": "stop",
        "usage": USAGE,
    }


def test_a_pipe_is_read_line_by_line_with_history(chat: Chat, server: ScriptedServer) -> None:
    result = chat(typed="one\n\ntwo")
    assert (result.exit_code, result.stdout) == (0, "You said: one\nYou said: two\n")
    assert [text for _, text in server.chats[1].messages] == ["one", "You said: one", "two"]


def test_commands_work_in_a_pipe_and_stay_out_of_the_output(
    chat: Chat, server: ScriptedServer
) -> None:
    result = chat(typed="one\n/reset\n/system Be brief.\ntwo\n/exit\nthree\n")
    assert result.stdout == "You said: one\nYou said: two\n"
    assert "System message: Be brief." in result.stderr
    assert server.chats[1].messages == [("system", "Be brief."), ("user", "two")]


def test_a_failed_turn_in_a_pipe_is_told_and_counts(chat: Chat, server: ScriptedServer) -> None:
    error = {"error": {"message": "Too long.", "code": "context_length_exceeded"}}
    server.answers.append(reply_json(error, status=400))
    result = chat(typed="one\ntwo\n")
    assert result.stderr.strip() == "400 context_length_exceeded: Too long."
    assert (result.exit_code, result.stdout) == (1, "You said: two\n")
    assert server.chats[1].messages == [("user", "two")]


def test_a_failed_question_keeps_what_was_printed(chat: Chat, server: ScriptedServer) -> None:
    server.answers.append(send_raw(event(chunk("half"))))
    result = chat("hi")
    assert (result.exit_code, result.stdout) == (1, "half\n")
    assert result.stderr.strip() == "the stream broke off"


def test_no_server(chat: Chat) -> None:
    command = ["chat", "--base-url", "http://127.0.0.1:9", "hi"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    expected = "no server at http://127.0.0.1:9/v1: start one with `make serve` or `parlm serve`"
    assert result.stderr.strip() == expected


def test_a_server_without_models(chat: Chat, server: ScriptedServer) -> None:
    server.models = {}
    result = chat("hi")
    assert (result.exit_code, result.stderr.strip()) == (1, "the server offers no model")


def test_a_named_model_needs_no_list(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_reply_to", lambda _: reply_json({}, status=404))
    with Client(server.url) as client:
        assert choose_model(client, "mine") == "mine"
        with pytest.raises(ServerError):
            choose_model(client, None)


def test_the_settings_lead_to_the_server(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_SERVER", server.url)
    monkeypatch.setenv("API_KEYS", "first,second")
    assert CliRunner().invoke(app, ["chat", "hi"]).stdout == "You said: hi\n"
    assert server.chats[0].headers["authorization"] == "Bearer first"


def test_the_key_of_the_settings_goes_to_no_other_server(
    chat: Chat, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEYS", "secret")
    chat("hi")
    chat("hi", "--api-key", "given")
    assert "authorization" not in server.chats[0].headers
    assert server.chats[1].headers["authorization"] == "Bearer given"


def test_a_url_with_a_path_is_taken_as_it_is(server: ScriptedServer) -> None:
    url = server.url.replace("/v1", "/openai/v4/")
    result = CliRunner().invoke(app, ["chat", "--base-url", url, "--model", "m", "hi"])
    assert (result.exit_code, result.stdout) == (0, "You said: hi\n")
    assert server.chats[0].path == "/openai/v4/chat/completions"


def test_a_base_url_that_is_none(chat: Chat) -> None:
    result = CliRunner().invoke(app, ["chat", "--base-url", "http://x:port", "hi"])
    assert result.exit_code == 2
    assert "--base-url" in result.stderr


def test_bytes_that_are_not_utf8_are_no_crash(server: ScriptedServer) -> None:
    result = CliRunner().invoke(app, ["chat", "--base-url", server.url], input=b"a\xffb\n")
    assert (result.exit_code, result.stdout) == (0, "You said: a\ufffdb\n")


def test_an_argument_that_is_not_utf8_is_no_crash(chat: Chat) -> None:
    assert chat(os.fsdecode(b"a\xffb")).stdout == "You said: a?b\n"


def press_ctrl_c(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("arguments", [["hi"], []], ids=["one question", "pipe"])
def test_ctrl_c_without_a_terminal_ends_the_program(
    chat: Chat,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    server.answers.append(gated("one ", "two"))
    monkeypatch.setattr(terminal, "write", press_ctrl_c)
    result = chat(*arguments, typed="hi\nthere\n")
    assert result.exit_code == EX_INTERRUPTED
    assert len(server.chats) == 1
    assert server.has_lost_client.wait(5)


def test_a_second_ctrl_c_does_not_hit_the_clean_up() -> None:
    handler = signal.getsignal(signal.SIGINT)
    cleaned = []
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            press_ctrl_c()
        finally:
            press_ctrl_c()
            cleaned.append(True)
    assert cleaned
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_cut_answer_is_noted_at_a_terminal(
    chat: Chat, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    end = event(chunk(finish="length")) + b"data: [DONE]\n\n"
    server.answers.append(send_raw(event(chunk("half")), end))
    output = chat("hi").stdout
    assert "half\n" in output
    assert "the limit of tokens was reached" in output


def test_reasoning_is_shown_at_a_terminal_only(
    chat: Chat, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def think(exchange: Exchange) -> None:
        await exchange.start(200, "text/event-stream")
        await exchange.send(event({"choices": [{"delta": {"reasoning_content": "hm"}}]}))
        await exchange.send(event(chunk("yes")) + event(chunk(finish="stop")) + b"data: [DONE]\n\n")

    server.answers += [think, think]
    assert chat("hi").stdout == "yes\n"
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    assert "hm\n\nyes\n" in chat("hi").stdout


def test_no_terminal_control_comes_from_a_pipe(chat: Chat, server: ScriptedServer) -> None:
    server.answers.append(stream("a\x1b[31mb"))
    assert chat("hi").stdout == "a\x1b[31mb\n"


def test_an_unreadable_env_file_is_named(chat: Chat, tmp_path: Path) -> None:
    result = chat("hi", "--env-file", str(tmp_path / "none"))
    assert "there is no file" in str(result.exception)


def test_a_url_of_another_protocol() -> None:
    result = CliRunner().invoke(app, ["chat", "--base-url", "ftp://x/v1", "hi"])
    assert result.exit_code == 1
    assert result.stderr.startswith("ftp://x/v1: ")
