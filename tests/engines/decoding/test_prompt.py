from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from engines.decoding.prompt import PromptTokenizer
from engines.errors import ContextLengthExceeded, InvalidParameter, InvalidRequest
from engines.types import Message, MessagesPrompt, PartsPrompt, Prompt, Special, Text, TokensPrompt

BOS, END, USER = 300, 301, 302


@dataclass
class Bytes:
    """A vocabulary of bytes and three special tokens, one of them found in any text."""

    n_tokens: int = 303
    longest: int = 6
    bos: int | None = BOS
    add_bos: bool = True
    user_defined: dict[int, str] = field(default_factory=lambda: {USER: "[user]"})
    calls: list[bytes] = field(default_factory=list)

    def tokenize(self, text: bytes) -> list[int]:
        self.calls.append(text)
        ids: list[int] = []
        for i, piece in enumerate(text.split(self.user_defined[USER].encode())):
            ids += [USER] * (i > 0) + list(piece)
        return ids

    def special_id(self, name: str) -> int | None:
        return {"<s>": BOS, "</s>": END, self.user_defined[USER]: USER}.get(name)


def encode(prompt: Prompt, vocabulary: Bytes | None = None) -> list[int]:
    return PromptTokenizer(vocabulary or Bytes()).encode(prompt)


def test_text_and_special_tokens_in_order() -> None:
    parts = (Text("a"), Special("</s>"), Text("b"))
    assert encode(PartsPrompt(parts)) == [BOS, ord("a"), END, ord("b")]


def test_neighbouring_texts_are_tokenised_as_one() -> None:
    vocabulary = Bytes()
    encode(PartsPrompt((Text("a"), Text(""), Text("b"), Special("</s>"), Text("c"))), vocabulary)
    assert vocabulary.calls == [b"ab", b"c"]


def test_text_that_looks_like_a_special_token_stays_text() -> None:
    assert encode(PartsPrompt((Text("</s>"),), add_bos=False)) == list(b"</s>")


@pytest.mark.parametrize("text", ["[user]", "a[user]b", "[user][user]", "[us[user]er]"])
def test_a_token_of_the_template_never_comes_out_of_a_text(text: str) -> None:
    ids = encode(PartsPrompt((Special("[user]"), Text(text)), add_bos=False))
    assert ids == [USER, *text.encode()]


def test_nor_does_a_stop_token() -> None:
    ids = encode(PartsPrompt((Text("[user]"),), add_bos=False, stop_tokens=("[user]",)))
    assert ids == list(b"[user]")


def test_nor_a_token_that_looks_like_control() -> None:
    vocabulary = Bytes(user_defined={USER: "<|user|>"})
    assert encode(PartsPrompt((Text("<|user|>"),), add_bos=False), vocabulary) == list(b"<|user|>")


def test_other_user_defined_tokens_are_found_in_text() -> None:
    assert encode(PartsPrompt((Text("a[user]"),), add_bos=False)) == [ord("a"), USER]


def test_many_forged_tokens_are_no_trouble() -> None:
    ids = encode(PartsPrompt((Special("[user]"), Text("[user]" * 5000)), add_bos=False))
    assert ids.count(USER) == 1


def test_a_name_that_cannot_be_cut_is_refused() -> None:
    vocabulary = Bytes(user_defined={USER: "U"})
    with pytest.raises(InvalidRequest, match="may not contain 'U'"):
        encode(PartsPrompt((Special("U"), Text("aUb"))), vocabulary)


@pytest.mark.parametrize("parts", [(Special("<s>"), Text("a")), (Text("a"),)])
def test_bos_stands_once_in_front(parts: tuple[Text | Special, ...]) -> None:
    assert encode(PartsPrompt(parts)) == [BOS, ord("a")]


def test_no_bos_where_the_vocabulary_wants_none() -> None:
    assert encode(PartsPrompt((Text("a"),)), Bytes(add_bos=False)) == [ord("a")]
    assert encode(PartsPrompt((Text("a"),)), Bytes(bos=None)) == [ord("a")]


def test_an_empty_prompt_may_be_one_bos() -> None:
    assert encode(PartsPrompt(())) == [BOS]


@pytest.mark.parametrize(
    "prompt", [PartsPrompt((), add_bos=False), PartsPrompt((Text(""),), False), TokensPrompt(())]
)
def test_a_prompt_without_tokens_is_refused(prompt: Prompt) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        encode(prompt)


def test_an_unknown_special_token_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"no token '<nope>'"):
        encode(PartsPrompt((Special("<nope>"),)))
    with pytest.raises(InvalidRequest, match=r"no token '<nope>'"):
        encode(PartsPrompt((Text("a"),), stop_tokens=("<nope>",)))


def test_token_ids_are_taken_as_they_are() -> None:
    assert encode(TokensPrompt((1, END, 2))) == [1, END, 2]


@pytest.mark.parametrize("token", [-1, 303, 2**40])
def test_token_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(InvalidParameter, match="0 to 302") as caught:
        encode(TokensPrompt((1, token)))
    assert caught.value.param == "prompt"


def test_messages_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="rendered prompt"):
        encode(MessagesPrompt((Message("user", "hi"),)))


def test_a_text_that_must_exceed_the_limit_is_refused_unread() -> None:
    vocabulary = Bytes()
    with pytest.raises(ContextLengthExceeded, match="11 in the messages"):
        PromptTokenizer(vocabulary).encode(PartsPrompt((Text("a" * 66),)), 10)
    assert vocabulary.calls == []
    assert len(PromptTokenizer(vocabulary).encode(PartsPrompt((Text("a" * 65),)), 10)) == 66


def test_an_unpaired_surrogate_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"U\+D800"):
        encode(PartsPrompt((Text("a\ud800"),)))
