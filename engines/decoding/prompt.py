"""Prompts to token ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Protocol, assert_never

from engines.errors import ContextLengthExceeded, InvalidParameter, InvalidRequest
from engines.types import MessagesPrompt, PartsPrompt, Prompt, Special, Text, TokensPrompt


class Tokens(Protocol):
    """What is needed of a vocabulary."""

    n_tokens: int
    longest: int
    bos: int | None
    add_bos: bool
    user_defined: dict[int, str]

    def tokenize(self, text: bytes) -> list[int]:
        """Return the tokens of a text: user-defined ones may be among them, control tokens not."""
        ...

    def special_id(self, name: str) -> int | None:
        """Return the id of the token with this name."""
        ...


class PromptTokenizer:
    """Turns a prompt into exactly the ids that the model will see.

    Neighbouring texts are joined; each stretch between special tokens is tokenised for itself
    with the parsing of special tokens off. A SentencePiece vocabulary with a dummy prefix puts
    its "▁" in front of each stretch, as the tokenizers of those models do after a special
    token; a template that needs none must say so in its own ids.
    """

    def __init__(self, vocabulary: Tokens) -> None:
        self._vocabulary = vocabulary
        # Control tokens in all but name: some files call those of their template user-defined.
        self._guarded = {
            token: name
            for token, name in vocabulary.user_defined.items()
            if name.startswith("<|") and name.endswith("|>")
        }

    def encode(self, prompt: Prompt, limit: int | None = None) -> list[int]:
        """Return the token ids. Raises `InvalidRequest`, also for a prompt of no tokens.

        With a `limit` in tokens, a text that must exceed it is refused unread: tokenising
        megabytes would hold up every other request. The error then counts as few tokens as it
        could have.
        """
        if limit is not None and isinstance(prompt, PartsPrompt):
            self._check_length(prompt, limit)
        match prompt:
            case PartsPrompt():
                ids = self._encode_parts(prompt)
            case TokensPrompt(token_ids):
                ids = self._check_ids(token_ids)
            case MessagesPrompt():
                raise InvalidRequest(
                    "this engine needs a rendered prompt, not messages", "messages"
                )
            case _:
                assert_never(prompt)
        if not ids:
            raise InvalidRequest("the prompt is empty: it has no tokens", param="prompt")
        return ids

    def special_ids(self, names: Iterable[str]) -> list[int]:
        """Return the ids of special tokens. Raises `InvalidRequest` for an unknown name."""
        return [self._special(name) for name in names]

    def _check_length(self, prompt: PartsPrompt, limit: int) -> None:
        characters = sum(len(part.text) for part in prompt.parts if isinstance(part, Text))
        at_least = characters // self._vocabulary.longest
        if at_least > limit:
            raise ContextLengthExceeded(limit, at_least, is_lower_bound=True)

    def _encode_parts(self, prompt: PartsPrompt) -> list[int]:
        names = {part.token for part in prompt.parts if isinstance(part, Special)}
        names.update(prompt.stop_tokens)
        forbidden = self._guarded | {self._special(name): name for name in names}
        ids: list[int] = []
        for part in _joined(prompt.parts):
            if isinstance(part, Special):
                ids.append(self._special(part.token))
            else:
                ids += self._encode_text(part.text, forbidden)
        bos = self._vocabulary.bos
        if prompt.add_bos and self._vocabulary.add_bos and bos is not None and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids

    def _special(self, name: str) -> int:
        token = self._vocabulary.special_id(name)
        if token is None:
            raise InvalidRequest(f"the model's vocabulary has no token {name!r}", param="prompt")
        return token

    def _encode_text(self, text: str, forbidden: Mapping[int, str]) -> list[int]:
        """Tokenise a text so that none of the forbidden tokens comes out of it.

        A tokenizer finds *user-defined* tokens in any text. The name of one that may not be
        there is cut in two, and each half tokenised for itself.
        """
        ids = self._vocabulary.tokenize(_utf8(text))
        if forbidden.keys().isdisjoint(ids):
            return ids
        stretches = cut_names(text, forbidden.values())
        ids = [
            token for stretch in stretches for token in self._vocabulary.tokenize(_utf8(stretch))
        ]
        for token in forbidden.keys() & set(ids):
            raise InvalidRequest(
                f"a text may not contain {forbidden[token]!r} with this model", "messages"
            )
        return ids

    def _check_ids(self, token_ids: tuple[int, ...]) -> list[int]:
        size = self._vocabulary.n_tokens
        for token in token_ids:
            if not 0 <= token < size:
                raise InvalidParameter(
                    "prompt", f"token id {token} is not in the vocabulary (0 to {size - 1})"
                )
        return list(token_ids)


def _joined(parts: Iterable[Text | Special]) -> list[Text | Special]:
    """Join neighbouring texts and drop empty ones."""
    joined: list[Text | Special] = []
    for part in parts:
        if isinstance(part, Special):
            joined.append(part)
        elif joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].text + part.text)
        elif part.text:
            joined.append(part)
    return joined


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the text contains an unpaired surrogate, U+{ord(text[error.start]):04X}", "messages"
        ) from error


def cut_names(text: str, names: Iterable[str]) -> list[str]:
    """Cut a text in the middle of every occurrence of a name."""
    longest_first = sorted(names, key=len, reverse=True)
    stretches = [""]
    for i, part in enumerate(re.split(f"({'|'.join(map(re.escape, longest_first))})", text)):
        is_name = i % 2 == 1
        middle = len(part) // 2 if is_name else len(part)
        stretches[-1] += part[:middle]
        if is_name:
            stretches.append(part[middle:])
    return [stretch for stretch in stretches if stretch]
