"""A conversation: its history over turns, and the commands that change it."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace

from server.cli.client import ChatParams, Chunk, Client, ClientError

# `/etc/hosts is empty, why?` is a message, `/rest` a misspelt command.
_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)

HELP = """\
/system TEXT  set the system message; without TEXT show it; "" removes it
/model NAME   go on with another model; without NAME show which one it is
/reset        forget the conversation, keep the system message
/help         show this
/exit         leave, as does Ctrl-D
End a line in \\ to go on in the next, or put several lines between \"\"\" and \"\"\".
Ctrl-C stops an answer."""


class Leave(Exception):
    """The user asked to leave."""


@dataclass
class Conversation:
    """What has been said, and to whom the next message goes."""

    client: Client
    params: ChatParams
    system: str | None = None
    turns: list[dict[str, str]] = field(default_factory=list)

    def messages(self) -> list[dict[str, str]]:
        """The messages so far, the system message first."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + self.turns

    def ask(self, prompt: str) -> Generator[Chunk, None, None]:
        """Stream the answer to `prompt`.

        The turn joins the history when the answer is whole, or was stopped after some text:
        by closing the iterator or by Ctrl-C. After a `ClientError` it is as if never asked.
        """
        question = {"role": "user", "content": prompt}
        answer: list[str] = []
        is_failed = False
        try:
            with closing(self.client.chat([*self.messages(), question], self.params)) as chunks:
                for chunk in chunks:
                    answer.append(chunk.text)
                    yield chunk
        except ClientError:
            is_failed = True
            raise
        finally:
            text = "".join(answer)
            if text and not is_failed:
                self.turns += [question, {"role": "assistant", "content": text}]

    def command(self, message: str) -> str | None:
        """Carry out a command; return what to tell the user, or None if it is a message.

        Raises `Leave` for /exit.
        """
        match = _COMMAND.fullmatch(message.strip())
        if match is None:
            return None
        name, argument = match[1], (match[2] or "").strip()
        if name in ("exit", "quit", "bye"):
            raise Leave
        if name == "reset":
            self.turns.clear()
            return "The conversation starts anew."
        if name == "system":
            return self._set_system(argument)
        if name == "model":
            return self._set_model(argument)
        return HELP if name == "help" else f"There is no command /{name}: see /help."

    def _set_system(self, text: str) -> str:
        if text:
            self.system = None if text == '""' else text
        return f"System message: {self.system}" if self.system else "There is no system message."

    def _set_model(self, name: str) -> str:
        if name:
            self.params = replace(self.params, model=name)
        return f"Model: {self.params.model}"
