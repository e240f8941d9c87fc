from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adapters.scanning import TagSearch, Trim


@given(st.text("<a>", max_size=30), st.sampled_from(["<a>", "<<a", "<a<a>", "a"]))
def test_a_tag_is_found_where_it_begins_first(text: str, tag: str) -> None:
    search = TagSearch(tag)
    before = ""
    for number, char in enumerate(text):
        passed, rest = search.feed(char)
        before += passed
        if rest is not None:
            assert before + tag == text[: number + 1]
            assert text.find(tag) == len(before)
            return
    assert tag not in text
    assert before + search.held == text


def test_what_follows_a_tag_is_returned() -> None:
    search = TagSearch("<a>")
    assert search.feed("x<") == ("x", None)
    assert search.feed("a>y<a>") == ("", "y<a>")
    assert search.held == ""


@given(st.text(" \nx", max_size=30), st.booleans())
def test_trim(text: str, skips_leading: bool) -> None:
    trim = Trim(skips_leading=skips_leading)
    passed = "".join(map(trim.feed, text))
    wanted = text.lstrip() if skips_leading else text
    assert passed == (wanted.rstrip() if wanted.strip() else "")
    assert trim.held_size == len(wanted) - len(passed)
    assert passed + trim.flush() == wanted
    assert trim.held_size == 0
