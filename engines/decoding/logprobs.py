"""Log-probabilities of chosen tokens, and when each may be shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engines.types import TextDelta, TokenLogprob, TopLogprob

# OpenAI's value for "very unlikely"; minus infinity is no JSON.
LEAST_LOGPROB = -9999.0


class LogprobReader:
    """Reads log-probabilities off raw logits: the model's own, before any sampling setting.

    `pieces` are the bytes a token adds to the text, `names` the bytes it is shown with; they
    differ for control tokens, which add none.
    """

    def __init__(self, pieces: Sequence[bytes], names: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._names = names

    def read(self, row: NDArray[np.float32], token: int, n_top: int) -> TokenLogprob:
        """Return the logprob of `token` and of the `n_top` likeliest, likeliest first."""
        logits = row.astype(np.float64)
        largest = logits.max()
        total = float(largest + np.log(np.exp(logits - largest).sum()))
        n_top = min(n_top, logits.size)
        likeliest = np.argpartition(logits, -n_top)[-n_top:] if n_top else np.empty(0, np.intp)
        likeliest = likeliest[np.argsort(-logits[likeliest], kind="stable")]
        piece = self._pieces[token]
        return TokenLogprob(
            token=piece.decode("utf-8", "replace"),
            logprob=_bounded(logits[token] - total),
            bytes=piece,
            top=tuple(self._top(int(i), logits[i] - total) for i in likeliest),
        )

    def unmeasured(self, token: int) -> TokenLogprob:
        """Return a token without a logprob."""
        piece = self._pieces[token]
        return TokenLogprob(piece.decode("utf-8", "replace"), None, piece)

    def piece(self, token: int) -> bytes:
        """Return the bytes a token adds to the text."""
        return self._pieces[token]

    def _top(self, token: int, logprob: float) -> TopLogprob:
        name = self._names[token]
        return TopLogprob(name.decode("utf-8", "replace"), _bounded(logprob), name)


class PromptEcho:
    """The text of a prompt as an answer begins with it, for a request that asked for `echo`.

    With `n_top` each token has the log-probability the model gave it, and so many likeliest;
    but for the first, which nothing precedes. `read` is to see all rows, in order.
    """

    def __init__(self, reader: LogprobReader, prompt: NDArray[np.int32], n_top: int | None) -> None:
        self._reader = reader
        self._prompt = prompt
        self._n_top = n_top
        self._tokens: list[TokenLogprob] = []
        if n_top is not None:
            self._tokens.append(reader.unmeasured(int(prompt[0])))

    def read(self, rows: NDArray[np.float32]) -> None:
        """Take the logits behind the next tokens of the prompt."""
        for row in rows:
            token = int(self._prompt[len(self._tokens)])
            self._tokens.append(self._reader.read(row, token, self._n_top or 0))

    def event(self, index: int) -> TextDelta:
        """Return the event that shows the prompt, for choice `index`."""
        text = b"".join(self._reader.piece(int(token)) for token in self._prompt)
        return TextDelta(index, text.decode("utf-8", "replace"), tuple(self._tokens))


class LogprobQueue:
    """Holds each token's logprob until the text it belongs to is shown.

    Positions count the characters of the answer. A token that ends inside a character waits
    for the rest of it.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, int, TokenLogprob]] = deque()

    def add(self, logprob: TokenLogprob, start: int, end: int) -> None:
        """Queue the token whose text is [start, end)."""
        self._waiting.append((start, end, logprob))

    def take(self, shown: int) -> tuple[TokenLogprob, ...]:
        """Return the tokens whose text is all among the first `shown` characters."""
        taken = []
        while self._waiting and self._waiting[0][1] <= shown:
            taken.append(self._waiting.popleft()[2])
        return tuple(taken)

    def take_last(self, shown: int | None) -> tuple[TokenLogprob, ...]:
        """Return what is left; when a stop string cut the text, only what shows in part."""
        left = self._waiting
        self._waiting = deque()
        return tuple(entry for start, _, entry in left if shown is None or start < shown)


def _bounded(logprob: float) -> float:
    return max(float(logprob), LEAST_LOGPROB)
