"""Lines joined to messages."""

from __future__ import annotations

import pytest

from server.cli.reading import CONTINUED, PROMPT, ReadLine, read_message


def lines(*typed: str) -> ReadLine:
    left = list(typed)

    def read(_: str) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    return read


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["hello", "next"], "hello"),
        ([""], ""),
        (["one\\", "two\\", "three", "next"], "one\ntwo\nthree"),
        (["one\\", "", "next"], "one\n"),
        (["one\\"], "one\n"),
        (['"""one"""'], "one"),
        (['"""', "one", "", "  two", '"""', "next"], "one\n\n  two"),
        (['  """one', 'two"""'], "one\ntwo"),
        (['"""one', "two"], "one\ntwo"),
        (['"""one\\', 'two"""'], "one\\\ntwo"),
        (["pasted\nlines"], "pasted\nlines"),
    ],
)
def test_messages(typed: list[str], message: str) -> None:
    assert read_message(lines(*typed)) == message


def test_the_end_of_the_input() -> None:
    with pytest.raises(EOFError):
        read_message(lines())


def test_what_follows_a_block_is_left_for_the_next_message() -> None:
    read = lines('"""a', 'b"""', "next")
    assert [read_message(read), read_message(read)] == ["a\nb", "next"]


def test_a_continued_line_has_a_prompt_of_its_own() -> None:
    prompts = []
    typed = ["one\\", "two"]

    def read(prompt: str) -> str:
        prompts.append(prompt)
        return typed.pop(0)

    read_message(read)
    assert prompts == [PROMPT, CONTINUED]
