from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.filters import FilteredText, Replaced, Stripped, TextFilter
from adapters.parsing import ParsedEvent
from engines.types import Finish, TextDelta, TokenLogprob


def run(pieces: list[str], *filters: TextFilter) -> str:
    parser = FilteredText(*filters)
    events: list[ParsedEvent] = []
    for piece in pieces:
        events += parser.feed(TextDelta(0, piece))
    events += parser.finish(0, "stop")
    assert events.pop() == Finish(0, "stop")
    assert all(isinstance(event, TextDelta) for event in events)
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize(
    ("text", "stripped"),
    [(" Hi.\n", "Hi."), ("    return 1", "   return 1"), ("a \n b\n\n", "a \n b"), ("  ", "")],
)
def test_stripped_of_what_a_label_and_a_stop_leave(text: str, stripped: str) -> None:
    assert run([text], Stripped()) == run([*text], Stripped()) == stripped


@given(st.lists(st.sampled_from([" ", "\n", "a", "", "  b "])))
def test_stripped_of_everything(pieces: list[str]) -> None:
    assert run(pieces, Stripped(all_leading=True)) == "".join(pieces).strip()


@given(st.lists(st.sampled_from(["[", "[[x", "]]", "]", "x", "[[x]]", ""])))
def test_replaced(pieces: list[str]) -> None:
    assert run(pieces, Replaced("[[x]]", "y")) == "".join(pieces).replace("[[x]]", "y")


def test_filters_read_what_the_one_before_leaves() -> None:
    assert run([*" [a]b "], Stripped(), Replaced("[a]", "[b"), Replaced("bb", "c")) == "[c"


def test_logprobs_go_with_their_text() -> None:
    def token(text: str) -> TokenLogprob:
        return TokenLogprob(text, -1.0, text.encode())

    parser = FilteredText(Stripped())
    events: list[ParsedEvent] = []
    for piece in (" ", "Hi", " ", "you", "\n"):
        events += parser.feed(TextDelta(0, piece, (token(piece),)))
    events += parser.finish(0, "length")
    assert events == [
        TextDelta(0, "Hi", (token("Hi"),)),
        TextDelta(0, " you", (token(" "), token("you"))),
        Finish(0, "length"),
    ]
