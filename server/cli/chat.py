"""`parlm chat`: talk to a model in the terminal, through a pipe, or with one question."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from server.cli import reading, terminal
from server.cli.client import ChatParams, Chunk, Client, ClientError, ServerError
from server.cli.conversation import Conversation, Leave
from server.cli.options import ApiKey, AsJson, BaseUrl, EnvFile, connect, read_settings

EX_INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


def chat(
    prompt: Annotated[
        str | None, typer.Argument(help="Ask this, print the answer and exit.", show_default=False)
    ] = None,
    base_url: BaseUrl = None,
    model: Annotated[
        str | None, typer.Option(help="Model to ask.", show_default="the server's first")
    ] = None,
    api_key: ApiKey = None,
    system: Annotated[str | None, typer.Option(help="System message.", show_default=False)] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy.", show_default="the server's")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Longest answer, in tokens.", show_default="the server's")
    ] = None,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Chat with a model of a running server. /help lists the commands."""
    settings = read_settings(env_file)
    try:
        with connect(settings, base_url, api_key) as client:
            params = ChatParams(choose_model(client, model), temperature, max_tokens)
            conversation = Conversation(client, params, system)
            if prompt is None:
                code = Repl(conversation, reading.line_reader(), as_json=as_json).run()
            else:
                code = ask_once(conversation, prompt, as_json=as_json)
    except ClientError as error:
        terminal.error(error)
        code = 1
    raise typer.Exit(code)


def choose_model(client: Client, name: str | None) -> str:
    """Return the model to ask: `name`, else the first that the server lists.

    Also with a name this tells at once when no server is there. Raises `ClientError`.
    """
    try:
        listed = client.models()
    except ServerError:
        if name is None:
            raise
        return name  # a server without this list can still answer
    if name is not None:
        return name
    if not listed:
        raise ClientError("the server offers no model")
    return listed[0].id


def ask_once(conversation: Conversation, prompt: str, *, as_json: bool = False) -> int:
    """Print the answer to one question; return the exit code. Raises `ClientError`."""
    try:
        print_answer(conversation, _encodable(prompt), as_json=as_json)
    except KeyboardInterrupt:
        return EX_INTERRUPTED
    return 0


def print_answer(conversation: Conversation, prompt: str, *, as_json: bool = False) -> None:
    """Ask, and print the answer as it comes, or whole as JSON.

    Raises `ClientError`; raises `KeyboardInterrupt` when Ctrl-C has stopped the answer. Either
    way what was printed ends with a line end.
    """
    with interruptible(), closing(conversation.ask(prompt)) as chunks:
        if as_json:
            _print_json(chunks)
        else:
            _print_text(chunks)


def _print_json(chunks: Iterator[Chunk]) -> None:
    text, finish_reason, usage = "", None, None
    for chunk in chunks:
        text += chunk.text
        finish_reason = chunk.finish_reason or finish_reason
        usage = chunk.usage or usage
    reply = {"content": text, "finish_reason": finish_reason, "usage": usage}
    typer.echo(json.dumps(reply, ensure_ascii=False), color=True)


def _print_text(chunks: Iterator[Chunk]) -> None:
    finish_reason = None
    is_line_open = was_reasoning = False
    try:
        with terminal.spinner("waiting for the answer") as spinner:
            for chunk in chunks:
                finish_reason = chunk.finish_reason or finish_reason
                is_reasoning = bool(chunk.reasoning) and terminal.is_terminal()
                if not (chunk.text or is_reasoning):
                    continue
                if spinner is not None:
                    spinner.stop()
                if is_reasoning:
                    terminal.write(chunk.reasoning, dim=True)
                if chunk.text:
                    terminal.write(("\n\n" if was_reasoning else "") + chunk.text)
                was_reasoning = is_reasoning and not chunk.text
                is_line_open = True
    finally:
        if is_line_open:
            typer.echo()
    if finish_reason not in (None, "stop"):
        terminal.note(f"({_MEANING.get(finish_reason, finish_reason)})")


_MEANING = {
    "length": "cut off: the limit of tokens was reached",
    "content_filter": "cut off by the server's content filter",
    "tool_calls": "the model wants to call a tool, which this chat has none of",
}


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the first Ctrl-C raise `KeyboardInterrupt`, and ignore further ones until the end.

    An impatient second one would otherwise hit the clean-up of the first.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    with _on_ctrl_c(interrupt):
        yield


@contextmanager
def _on_ctrl_c(handler: Any) -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class Repl:
    """Reads messages, prints answers, and survives errors and Ctrl-C until the input ends."""

    def __init__(
        self, conversation: Conversation, read_line: reading.ReadLine, *, as_json: bool = False
    ) -> None:
        self._conversation = conversation
        self._read_line = read_line
        self._as_json = as_json
        self._is_interactive = reading.is_interactive()
        self._has_failed = False

    def run(self) -> int:
        """Talk until the input ends or /exit; return the exit code.

        At a terminal that is 0. In a pipe a failed turn makes it 1, and Ctrl-C ends it.
        """
        where = f"{self._conversation.params.model} at {self._conversation.client.base_url}"
        terminal.note(f"{where}. /help lists the commands, Ctrl-D leaves.")
        if not self._is_interactive:
            return self._loop()
        # Outside an answer Ctrl-C is a key that the prompt reads. One that comes between the two
        # would end the program.
        with _on_ctrl_c(signal.SIG_IGN):
            return self._loop()

    def _loop(self) -> int:
        while True:
            try:
                self.turn()
            except (EOFError, Leave):
                return 1 if self._has_failed and not self._is_interactive else 0
            except KeyboardInterrupt:
                if not self._is_interactive:
                    return EX_INTERRUPTED

    def turn(self) -> None:
        """Read and answer one message. Raises `EOFError`, `Leave` and `KeyboardInterrupt`."""
        try:
            message = _encodable(reading.read_message(self._read_line))
        except KeyboardInterrupt:
            terminal.note("(Ctrl-D leaves)")
            raise
        if not message.strip():
            return
        reply = self._conversation.command(message)
        if reply is not None:
            typer.echo(terminal.harmless(reply), err=not self._is_interactive)
            return
        try:
            print_answer(self._conversation, message, as_json=self._as_json)
        except ClientError as error:
            self._has_failed = True
            terminal.error(error)
        except KeyboardInterrupt:
            terminal.note("(stopped)")
            raise


def _encodable(text: str) -> str:
    """Replace what the terminal gave us that is not text: bytes of another encoding."""
    return text.encode("utf-8", "replace").decode()
