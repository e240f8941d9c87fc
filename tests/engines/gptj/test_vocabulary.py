"""What is recovered of a vocabulary."""

from __future__ import annotations

from engines.gptj.vocabulary import recover_merges, token_text, token_types
from tests.engines.gptj_files import END_OF_TEXT, bytes_vocabulary, small_vocabulary, to_bytes
from tests.engines.tiny_gguf import train_merges


def test_the_merges_of_a_trained_vocabulary_in_their_order() -> None:
    trained = [tuple(map(to_bytes, pair)) for pair in train_merges()]
    assert recover_merges(small_vocabulary()) == trained


def test_a_long_piece_is_split_where_the_merges_before_it_lead() -> None:
    # "abc" was made of "ab" + "c": "bc" has a higher rank, so "ab" comes first.
    words = (b"a", b"b", b"c", b"ab", b"bc", b"abc", END_OF_TEXT)
    assert recover_merges(words) == [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c")]


def test_a_token_that_no_merge_makes_has_none() -> None:
    assert recover_merges((b"a", b"b", b"aab", END_OF_TEXT, b"ab")) == []
    assert recover_merges(bytes_vocabulary()) == [(b"!", b"!")]


def test_names_behind_the_end_of_text_are_for_nobody() -> None:
    types = token_types(small_vocabulary(n_unused=3))
    assert types[-5:] == [1, 3, 5, 5, 5]
    assert set(types[:-5]) == {1}


def test_tokens_in_the_characters_of_gpt_2() -> None:
    assert token_text(b" the\n") == "ĠtheĊ"
    assert token_text("é".encode()) == "Ã©"
    every = bytes(range(256))
    assert to_bytes(token_text(every)) == every
