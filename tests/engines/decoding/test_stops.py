from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.decoding.stops import StopScanner

few_letters = st.text("ab\n", max_size=30)
stop_lists = st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=4)


def scan(pieces: list[str], stops: list[str]) -> tuple[list[str], bool]:
    """Return what was shown after each piece and at the end, and whether a stop was met."""
    scanner = StopScanner(stops)
    shown: list[str] = []
    for piece in pieces:
        text, is_stopped = scanner.push(piece)
        shown.append(text)
        if is_stopped:
            return shown, True
    return [*shown, scanner.flush()], False


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """The definition: the first character that completes a stop, then the longest such stop."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(st.lists(few_letters, max_size=12), stop_lists)
def test_any_split_gives_what_the_definition_says(pieces: list[str], stops: list[str]) -> None:
    shown, is_stopped = scan(pieces, stops)
    assert ("".join(shown), is_stopped) == expected("".join(pieces), stops)


@given(few_letters, stop_lists)
def test_no_more_is_held_than_could_become_a_stop(text: str, stops: list[str]) -> None:
    scanner = StopScanner(stops)
    _, is_stopped = scanner.push(text)
    held = "" if is_stopped else scanner.flush()
    assert len(held) <= max((len(stop) - 1 for stop in stops), default=0)
    assert not held or any(stop.startswith(held) for stop in stops)


@given(st.lists(st.text(), max_size=8), st.lists(st.text(max_size=4), max_size=4))
def test_any_text_any_stops(pieces: list[str], stops: list[str]) -> None:
    shown, is_stopped = scan(pieces, stops)
    real = [stop for stop in stops if stop]
    assert ("".join(shown), is_stopped) == expected("".join(pieces), real)


@pytest.mark.parametrize(
    ("pieces", "stops", "shown"),
    [
        (["Hello\nUs", "er: hi"], ["\nUser:"], ["Hello", ""]),
        (["a\n", "b"], ["\nUser:"], ["a", "\nb", ""]),
        (["a\n"], ["\nUser:"], ["a", "\n"]),
        (["one two three"], [" two", "one"], [""]),
        (["xabcd"], ["abcd", "c"], ["xab"]),
        (["xabc"], ["abc", "c"], ["x"]),
        (["no stops"], [""], ["no stops", ""]),
    ],
)
def test_examples(pieces: list[str], stops: list[str], shown: list[str]) -> None:
    assert scan(pieces, stops)[0] == shown
