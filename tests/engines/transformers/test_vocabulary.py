"""Tokenizers of all kinds: texts to ids and back, and no control token out of a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")


from engines.decoding.prompt import PromptTokenizer
from engines.errors import InvalidRequest
from engines.transformers.pieces import vocabulary_kind
from engines.transformers.vocabulary import HuggingFaceVocabulary
from engines.types import PartsPrompt, Special, Text
from tests.engines.tiny_folder import byte_tokenizer
from tests.engines.transformers import tokenizer_kinds
from tests.engines.transformers.tokenizer_kinds import KINDS

BYTES = ("byte_level", "llama_fast", "sentencepiece_slow", "python_slow")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("tokenizers")
    return {kind: tokenizer_kinds.build(kind, folder) for kind in KINDS}


def vocabulary_of(tokenizer: Any) -> HuggingFaceVocabulary:
    return HuggingFaceVocabulary(tokenizer, len(tokenizer) + 7, frozenset())


def text_of(vocabulary: HuggingFaceVocabulary, ids: list[int]) -> str:
    return b"".join(vocabulary.pieces[token] for token in ids).decode()


def test_the_kinds_are_told_apart(tokenizers: dict[str, Any]) -> None:
    assert {kind: vocabulary_kind(tokenizer) for kind, tokenizer in tokenizers.items()} == {
        "byte_level": "byte_level",
        "llama_fast": "sentencepiece",
        "sentencepiece_slow": "sentencepiece",
        "t5_fast": "sentencepiece",
        "word_piece": "other",
        "python_slow": "bytes",
    }


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("text", ["hello, world", "hell", "日本語 🎉", "< / s>"])
def test_pieces_join_to_the_text(tokenizers: dict[str, Any], kind: str, text: str) -> None:
    vocabulary = vocabulary_of(tokenizers[kind])
    assert text_of(vocabulary, vocabulary.tokenize(text.encode())).lstrip(" ") == text


def test_pieces_of_words(tokenizers: dict[str, Any]) -> None:
    vocabulary = vocabulary_of(tokenizers["t5_fast"])
    assert text_of(vocabulary, vocabulary.tokenize(b"hello world")) == " hello world"


def test_pieces_of_parts_of_words(tokenizers: dict[str, Any]) -> None:
    vocabulary = vocabulary_of(tokenizers["word_piece"])
    assert text_of(vocabulary, vocabulary.tokenize(b"hellos world")) == " hellos world"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["{}", "a{}b", "x {} y", "{}{}", "</{}", "</s{}"])
def test_no_text_becomes_a_control_token(tokenizers: dict[str, Any], kind: str, form: str) -> None:
    tokenizer = tokenizers[kind]
    vocabulary = vocabulary_of(tokenizer)
    for name in tokenizer.all_special_tokens:
        ids = vocabulary.tokenize(form.replace("{}", name).encode())
        control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        assert control.isdisjoint(ids)
        assert ids


def test_a_merge_can_spell_a_control_token(tokenizers: dict[str, Any]) -> None:
    """Else the test above would prove little: the library alone does not prevent it."""
    tokenizer = tokenizers["llama_fast"]
    ids = tokenizer.encode("</s>", add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.eos_token_id in ids
    vocabulary = vocabulary_of(tokenizer)
    assert text_of(vocabulary, vocabulary.tokenize(b"</s>")) == " </ s>"


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_found_by_name_and_show_nothing(
    tokenizers: dict[str, Any], kind: str
) -> None:
    tokenizer = tokenizers[kind]
    vocabulary = vocabulary_of(tokenizer)
    end = vocabulary.special_id(tokenizer.eos_token)
    assert end == tokenizer.eos_token_id
    assert end is not None
    assert vocabulary.pieces[end] == b""
    assert vocabulary.names[end] == tokenizer.eos_token.encode()
    assert vocabulary.special_id("<nope>") is None


def test_what_a_tokenizer_puts_around_a_text(tokenizers: dict[str, Any]) -> None:
    around = {}
    for kind, tokenizer in tokenizers.items():
        vocabulary = vocabulary_of(tokenizer)
        around[kind] = (vocabulary.add_bos, vocabulary.prefix, vocabulary.suffix)
    assert around["byte_level"] == (True, (1,), ())
    assert around["llama_fast"] == (True, (1,), ())
    assert around["sentencepiece_slow"] == (False, (), ())
    assert around["t5_fast"] == (False, (), (1,))
    assert around["word_piece"] == (False, (), ())
    assert around["python_slow"] == (False, (), (1,))


def test_ids_beyond_the_tokenizers_have_no_text(tokenizers: dict[str, Any]) -> None:
    vocabulary = vocabulary_of(tokenizers["byte_level"])
    assert len(vocabulary.pieces) == len(vocabulary.names) == vocabulary.n_tokens
    assert vocabulary.pieces[-7:] == [b""] * 7


def test_a_prompt_in_parts(tokenizers: dict[str, Any]) -> None:
    vocabulary = vocabulary_of(tokenizers["llama_fast"])
    prompt = PartsPrompt((Text("he</s>"), Special("</s>"), Text("he")))
    ids = PromptTokenizer(vocabulary).encode(prompt)
    he = vocabulary.special_id("▁he")
    assert ids[:2] == [1, he]
    assert ids[-2:] == [2, he]
    assert ids.count(2) == 1


def test_a_control_token_that_cannot_be_cut_is_refused(tokenizers: dict[str, Any]) -> None:
    tokenizer = byte_tokenizer_with("ÿ")
    vocabulary = vocabulary_of(tokenizer)
    vocabulary._control = {vocabulary.tokenize(b"a")[0]: "a"}
    with pytest.raises(InvalidRequest, match="may not contain 'a'"):
        vocabulary.tokenize(b"banana")


def test_words_added_later_are_found_in_text() -> None:
    tokenizer = byte_tokenizer_with("hello")
    vocabulary = vocabulary_of(tokenizer)
    token = vocabulary.special_id("hello")
    assert token is not None
    assert vocabulary.user_defined == {token: "hello"}
    assert vocabulary.tokenize(b"hello") == [token]
    assert vocabulary.pieces[token] == b"hello"


def byte_tokenizer_with(word: str) -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([word])
    return tokenizer
