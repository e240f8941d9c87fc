"""The tokens of a model: what tokenising prompts and writing answers needs of a tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from engines.decoding.prompt import Tokens, cut_names
from engines.errors import InvalidRequest
from engines.transformers.pieces import special_tokens, token_names, token_pieces

# Any text will do that becomes tokens with every vocabulary.
_SAMPLE = "a"


class Vocabulary(Tokens, Protocol):
    """The tokens of a model by their ids, at least `n_tokens` of them.

    `pieces[id]` are the bytes a token adds to an answer (none for control tokens) and
    `names[id]` the bytes it is shown with. `end_tokens` are those with which the model ends an
    answer. `strips_first_space` says that a space in front of a whole answer is not part of it.
    See `prompt.Tokens` for the rest.
    """

    end_tokens: frozenset[int]
    strips_first_space: bool

    @property
    def pieces(self) -> Sequence[bytes]:
        """What each token adds to an answer."""
        ...

    @property
    def names(self) -> Sequence[bytes]:
        """What each token is shown with."""
        ...


class HuggingFaceVocabulary:
    """The tokens of a transformers tokenizer, fast or slow; a `Vocabulary`.

    `n_tokens` is the model's number of ids, which may differ from the tokenizer's. `prefix` and
    `suffix` are the ids the tokenizer itself puts around a text.
    """

    def __init__(
        self,
        tokenizer: Any,
        n_tokens: int,
        end_tokens: frozenset[int],
        *,
        strips_first_space: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        # It warns of texts beyond the length it was made for; the engine has a limit of its own.
        logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)
        self.n_tokens = n_tokens
        self.end_tokens = end_tokens
        self.strips_first_space = strips_first_space
        self.pieces = _padded(token_pieces(tokenizer), n_tokens)
        names = [(name or "").encode() for name in token_names(tokenizer)]
        shown = zip(self.pieces, _padded(names, n_tokens), strict=True)
        self.names = [piece or name for piece, name in shown]
        self.longest = max(map(len, self.names))
        special = special_tokens(tokenizer)
        added = tokenizer.added_tokens_decoder.items()
        self.user_defined = {i: token.content for i, token in added if i not in special}
        self._ids = {name: i for i, name in (self.user_defined | special).items()}
        # What is not in the vocabulary at all may become "unknown".
        self._control = {i: name for i, name in special.items() if i != tokenizer.unk_token_id}
        self._vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.prefix, self.suffix = self._surroundings()
        self.bos: int | None = tokenizer.bos_token_id
        self.add_bos = self.bos is not None and self.prefix[:1] == (self.bos,)

    def tokenize(self, text: bytes) -> list[int]:
        """Return the tokens of a text: user-defined ones may be among them, control tokens not.

        Raises `InvalidRequest` for a text of which that cannot be had.
        """
        ids = self._encode(text.decode())
        if self._control.keys().isdisjoint(ids):
            return ids
        # A merge of ordinary tokens can be spelt as a control token: `</` and `s>`.
        stretches = cut_names(text.decode(), self._control.values())
        ids = [token for stretch in stretches for token in self._encode(stretch)]
        for token in self._control.keys() & set(ids):
            raise InvalidRequest(
                f"a text may not contain {self._control[token]!r} with this model", "messages"
            )
        return ids

    def special_id(self, name: str) -> int | None:
        """Return the id of the token with this name."""
        return self._ids.get(name, self._vocabulary.get(name))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )
        return ids

    def _surroundings(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids that the tokenizer puts before and behind a text of its own accord."""
        inner = self._tokenizer.encode(_SAMPLE, add_special_tokens=False)
        whole = self._tokenizer.encode(_SAMPLE, add_special_tokens=True)
        for start in range(len(whole) - len(inner) + 1):
            if whole[start : start + len(inner)] == inner:
                return tuple(whole[:start]), tuple(whole[start + len(inner) :])
        return (), ()


def _padded(values: list[bytes], length: int) -> list[bytes]:
    """Add empty ones up to a length: models have more ids than tokens, for round numbers."""
    return values + [b""] * (length - len(values)) if len(values) < length else values
