"""What the texts of the ChatGLMs have in common: rounds going in, punctuation coming out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from adapters.prompts import break_marks, is_system, rounds
from engines.types import Message

# With either colon: the first tokenizer makes no difference between them.
_ROUNDS = re.compile(r"[\[［]Round \d+[\]］]\s*问[:：]|\n答[:：]")
_HALF, _FULL = ",!:;?", "，！：；？"
_CHINESE = "[\u4e00-\u9fff]"
_BESIDE_CHINESE = re.compile(rf"(?<={_CHINESE})[{_HALF}]|[{_HALF}](?={_CHINESE})")
_TO_FULL = str.maketrans(_HALF, _FULL)


def fold_system(messages: Sequence[Message]) -> list[tuple[str, str | None]]:
    """Return the rounds of a chat, the text of its system messages before the first question.

    As DB-GPT v0.3.2: several are joined without anything between them, and a blank line follows.
    """
    system = "".join(m.content for m in messages if is_system(m))
    pairs = rounds(m for m in messages if not is_system(m))
    question, answer = pairs[0]
    folded = "\n\n".join(text for text in (system, question) if text)
    return [(folded, answer), *pairs[1:]]


def break_rounds(text: str) -> str:
    """Keep what a message quotes from looking like a round of the chat; see `break_marks`."""
    return break_marks(text, _ROUNDS)


class FullWidth:
    """Makes `, ! : ; ?` full-width where they stand beside a Chinese character.

    The tokenizer of the first generation makes them half-width when it reads; the authors'
    `process_response` puts them right in an answer. The last mark waits for what follows it.
    """

    def __init__(self) -> None:
        self._before = ""
        self._held = ""

    @property
    def held_size(self) -> int:
        """One, if a mark waits."""
        return len(self._held)

    def feed(self, text: str) -> str:
        """Return what text is certain."""
        if not text:
            return ""
        context = self._before + self._held + text
        done = _BESIDE_CHINESE.sub(lambda found: found[0].translate(_TO_FULL), context)
        self._held = done[-1] if done[-1] in _HALF else ""
        certain = done[len(self._before) : len(done) - len(self._held)]
        self._before = context[: len(context) - len(self._held)][-1:]
        return certain

    def flush(self) -> str:
        """Return the mark that nothing follows."""
        held, self._held = self._held, ""
        return held
