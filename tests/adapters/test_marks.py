from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.marks import Marker, _any_of, strip_marks
from engines.types import Special, Text

TOKENS = ["<s>", "</s>", "<|a|>", "<|ab|>", "aXa", "§"]
marker = Marker(TOKENS)


@given(st.lists(st.sampled_from([*TOKENS, "<", "|", "a", "X", ">", " "])).map("".join))
def test_marked_text_holds_no_name_and_loses_nothing(text: str) -> None:
    assert marker.split(marker.mark(text)) == ((Text(text),) if text else ())


@given(
    *[st.sampled_from([t[a:b] for t in TOKENS for a in range(6) for b in range(a, 7)])] * 3,
    st.sampled_from(["", " ", "x"]),
)
def test_no_name_arises_between_messages(one: str, two: str, three: str, between: str) -> None:
    rendered = between.join(map(marker.mark, (one, two, three)))
    assert not any(isinstance(part, Special) for part in marker.split(rendered))


@given(st.sampled_from(TOKENS[:5]), st.integers(1, 3), st.integers(1, 3))
def test_no_name_arises_with_the_template_s_text_around(token: str, left: int, right: int) -> None:
    inside = token[left : len(token) - right]
    if inside:
        rendered = token[:left] + marker.mark(inside) + token[len(token) - right :]
        assert marker.split(rendered) == (Text(token),)


@pytest.mark.parametrize("text", ["<|a|", " <|a|\n", "<"])
def test_a_beginning_of_a_name_is_not_completed(text: str) -> None:
    rendered = marker.mark(text) + "|a|>"
    assert marker.split(rendered) == (Text(text + "|a|>"),)


def test_trimming_works_as_written() -> None:
    assert strip_marks(marker.mark(" > <s> <|a ").strip()) == "> <s> <|a"


def test_names_of_the_template_are_found_longest_first() -> None:
    assert marker.split("<|ab|>x</s><s>§") == (
        Special("<|ab|>"), Text("x"), Special("</s>"), Special("<s>"), Special("§"),
    )  # fmt: skip


def test_a_name_of_one_character() -> None:
    assert marker.split("§" + marker.mark("§a") + "§") == (Special("§"), Text("§a"), Special("§"))


def test_marks_in_messages_are_removed() -> None:
    assert marker.mark("<\ufdd0s\ufdd1>") == marker.mark("<s>")


def test_everything_in_a_schema_is_marked_but_compares() -> None:
    named = Marker(["<|object|>"])
    schema = named.mark({"type": ["object", 1, None], "<|object|>": "<|object|>"}, is_data=True)
    assert schema["type"] == ["object", 1, None]
    written = "{'type': ['object', 1, None], '<|object|>': '<|object|>'}"
    assert named.split(str(schema)) == (Text(written),)


def test_without_special_tokens_all_is_text() -> None:
    assert Marker([""]).split(Marker([]).mark("<s>")) == (Text("<s>"),)


@given(st.lists(st.text("ab|", min_size=1, max_size=4), min_size=1), st.text("ab|", max_size=9))
def test_the_shared_pattern_finds_the_longest_word(words: list[str], text: str) -> None:
    found = re.match(_any_of(words), text)
    fitting = [word for word in words if text.startswith(word)]
    assert (found[0] if found else "") == max(fitting, key=len, default="")
