from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from adapters.streams import CumulativeStream, from_cumulative


def yielding(*items: Any) -> CumulativeStream:
    def generate_stream(
        model: Any, tokenizer: Any, params: dict[str, Any], device: str, context_len: int
    ) -> Iterator[Any]:
        """Documented."""
        yield from items

    return generate_stream


def collected(func: CumulativeStream, prompt: str = "", **options: bool) -> list[str]:
    return list(from_cumulative(func, **options)(None, None, {"prompt": prompt}, "cpu", 1))


@pytest.mark.parametrize(
    ("items", "new"),
    [
        (["He", "Hello", "Hello!"], ["He", "llo", "!"]),
        (["He", "He", "Hello"], ["He", "llo"]),
        ([{"text": "He", "usage": {}}, {"text": "Hello"}], ["He", "llo"]),
        (["caf\ufffd", "café"], ["caf", "é"]),
        (["caf\ufffd"], ["caf", "\ufffd"]),
        (["Hello ", "Hello"], ["Hello "]),
        ([], []),
    ],
)
def test_only_new_text(items: list[Any], new: list[str]) -> None:
    assert collected(yielding(*items)) == new


def test_a_declared_echo_is_cut_off() -> None:
    func = yielding("USER: hi", "USER: hi A", "USER: hi Aye")
    assert collected(func, "<s>USER: hi</s>", echoes_prompt=True) == [" A", "ye"]


def test_an_answer_may_begin_with_the_words_of_the_prompt() -> None:
    assert collected(yielding("Hi", "Hi there"), "Hi") == ["Hi", " there"]


def test_wrapping_twice_is_wrapping_once() -> None:
    once = from_cumulative(yielding())
    assert from_cumulative(once) is once
    assert once.__doc__ == "Documented."
