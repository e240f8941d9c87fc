"""A text completion in the making, whole or streamed: the older /v1/completions form."""

from __future__ import annotations

import time
from codecs import getincrementaldecoder
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec import UNSET

from engines.types import Event, Finish, TextDelta, TokenLogprob, Usage
from server.chat import usage_body
from server.models import ServedModel
from server.replies import TextChoice, TextCompletion, TextLogprobs, UsageBody, encode


class TextOffsets:
    """Where each token of a choice begins in its text, in characters.

    Counted from the tokens' bytes: their strings show half a character as one of their own, and
    the text of a chunk may end within a token.
    """

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def add(self, token: TokenLogprob) -> int:
        """Take the next token; return its offset."""
        start = self._characters
        self._characters += len(self._decoder.decode(token.bytes))
        return start


def text_logprobs(logprobs: Sequence[TokenLogprob], offsets: TextOffsets) -> TextLogprobs:
    """Return the wire form of the log probabilities that come next in a choice."""
    likeliest = [_likeliest(token) for token in logprobs]
    return TextLogprobs(
        [token.token for token in logprobs],
        [token.logprob for token in logprobs],
        likeliest if any(likeliest) else None,
        [offsets.add(token) for token in logprobs],
    )


def _likeliest(token: TokenLogprob) -> dict[str, float] | None:
    """The chosen token is always among them, as OpenAI says; none where none were measured."""
    if token.logprob is None or not token.top:
        return None
    return {top.token: top.logprob for top in token.top} | {token.token: token.logprob}


class TextChunks:
    """Turns the events of a completion into chunk payloads (JSON bytes)."""

    def __init__(self, answer_id: str, model: ServedModel, *, include_usage: bool) -> None:
        self.id = answer_id
        self.created = int(time.time())
        self.model = model
        self.include_usage = include_usage
        self._offsets: defaultdict[int, TextOffsets] = defaultdict(TextOffsets)

    def feed(self, event: Event) -> list[bytes]:
        """Return the chunks an event makes."""
        match event:
            case TextDelta():
                logprobs = None
                if event.logprobs:
                    logprobs = text_logprobs(event.logprobs, self._offsets[event.index])
                return [self._chunk([TextChoice(event.index, event.text, None, logprobs)])]
            case Finish():
                return [self._chunk([TextChoice(event.index, "", event.reason)])]
            case Usage():
                return [self._chunk([], usage_body(event))] if self.include_usage else []
            case _:
                return []

    def _chunk(self, choices: list[TextChoice], usage: UsageBody | None = None) -> bytes:
        body = TextCompletion(
            self.id,
            self.created,
            self.model.name,
            choices,
            self.model.fingerprint,
            usage if self.include_usage else UNSET,
        )
        return encode(body)


@dataclass(slots=True)
class _Choice:
    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None


class TextFold:
    """Folds the same events into one whole completion."""

    def __init__(self, answer_id: str, model: ServedModel, *, logprobs: bool) -> None:
        self.id = answer_id
        self.created = int(time.time())
        self.model = model
        self.wants_logprobs = logprobs
        self._choices: dict[int, _Choice] = {}
        self._usage = Usage(0, 0)

    def feed(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case TextDelta():
                choice = self._choices.setdefault(event.index, _Choice())
                choice.text.append(event.text)
                choice.logprobs.extend(event.logprobs)
            case Finish():
                choice = self._choices.setdefault(event.index, _Choice())
                choice.finish_reason = event.reason
            case Usage():
                self._usage = event
            case _:
                pass

    def body(self) -> bytes:
        """Return the completion as JSON, once all events are in."""
        choices = [self._choice(i, c) for i, c in sorted(self._choices.items())]
        return encode(
            TextCompletion(
                self.id,
                self.created,
                self.model.name,
                choices,
                self.model.fingerprint,
                usage_body(self._usage),
            )
        )

    def _choice(self, index: int, choice: _Choice) -> TextChoice:
        logprobs = None
        if self.wants_logprobs:
            logprobs = text_logprobs(choice.logprobs, TextOffsets())
        return TextChoice(index, "".join(choice.text), choice.finish_reason, logprobs)
