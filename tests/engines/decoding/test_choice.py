from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.decoding.choice import Choice, Limits
from engines.types import Event, Finish, TextDelta, TokenLogprob

END = 0
PIECES = [b"", b"a", b"b", b"ab", b"\xe6", b"\x97", b"\xa5", b"\xff", b"ba\xe6", b""]
tokens = st.lists(st.integers(1, len(PIECES) - 1), min_size=1, max_size=20)
stops = st.lists(st.sampled_from(["a", "ab", "ba", "aab", "日", "b日"]), max_size=3)


def logprob(token: int) -> TokenLogprob:
    piece = PIECES[token]
    return TokenLogprob(piece.decode("utf-8", "replace"), -1.0, piece)


def feed(choice: Choice, ids: list[int], *, with_logprobs: bool = False) -> list[Event]:
    events: list[Event] = []
    for token in ids:
        events += choice.accept(token, logprob(token) if with_logprobs else None)
        if choice.reason is not None:
            break
    return events


def make(max_tokens: int = 100, min_tokens: int = 0, stop: tuple[str, ...] = ()) -> Choice:
    return Choice(0, Limits(max_tokens, min_tokens, {END}, stop), PIECES)


def shown(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def shown_bytes(events: list[Event]) -> bytes:
    deltas = [event for event in events if isinstance(event, TextDelta)]
    return b"".join(entry.bytes for delta in deltas for entry in delta.logprobs)


@given(tokens)
def test_streamed_text_is_the_whole_text(ids: list[int]) -> None:
    events = feed(make(), [*ids, END])
    whole = b"".join(PIECES[i] for i in ids).decode("utf-8", "replace")
    assert shown(events) == whole
    assert events[-1] == Finish(0, "stop")


@given(tokens, stops)
def test_logprobs_come_with_the_text_they_belong_to(ids: list[int], stop: list[str]) -> None:
    choice = make(stop=tuple(stop))
    text = raw = b""
    for token in [*ids, END]:
        events = choice.accept(token, logprob(token))
        text += shown(events).encode()
        raw += shown_bytes(events)
        if choice.reason is not None:
            break
        # A token is never shown before its text.
        assert (
            raw.decode("utf-8", "replace").encode() == text[: len(raw)] or b"\xef\xbf\xbd" in text
        )
    whole = raw.decode("utf-8", "replace")
    assert whole.startswith(text.decode())
    if not stop:
        assert whole == text.decode()


@given(tokens, stops)
def test_every_choice_finishes_once(ids: list[int], stop: list[str]) -> None:
    choice = make(max_tokens=len(ids), stop=tuple(stop))
    events = feed(choice, ids)
    finishes = [event for event in events if isinstance(event, Finish)]
    assert [event.reason for event in finishes] == [choice.reason]
    assert events[-1] == finishes[0]


def test_the_end_token_shows_nothing_and_counts() -> None:
    choice = make()
    events = feed(choice, [1, END], with_logprobs=True)
    assert shown(events) == "a"
    assert shown_bytes(events) == b"a"
    assert choice.n_generated == 2


def test_the_end_token_wins_over_the_length() -> None:
    assert feed(make(max_tokens=2), [1, END])[-1] == Finish(0, "stop")


def test_length_ends_and_shows_what_was_held() -> None:
    events = feed(make(max_tokens=1, stop=("ab",)), [1])
    assert events == [TextDelta(0, "a"), Finish(0, "length")]


def test_a_stop_over_two_tokens_is_never_shown() -> None:
    events = feed(make(stop=("ab",)), [2, 1, 2, 1])
    assert events == [TextDelta(0, "b"), Finish(0, "stop")]


def test_an_unfinished_character_at_the_end_is_replaced() -> None:
    events = feed(make(max_tokens=2), [1, 4], with_logprobs=True)
    assert shown(events) == "a\ufffd"
    assert shown_bytes(events) == b"a\xe6"


def test_the_replacement_at_the_end_may_complete_a_stop() -> None:
    events = feed(make(max_tokens=1, stop=("\ufffd",)), [4])
    assert events == [Finish(0, "stop")]


def test_stops_are_not_looked_for_before_min_tokens() -> None:
    events = feed(make(min_tokens=2, stop=("a",)), [1, 1, 1])
    assert shown(events) == "aa"
    assert events[-1] == Finish(0, "stop")


def test_a_token_cut_by_a_stop_keeps_its_logprob_if_a_part_shows() -> None:
    events = feed(make(stop=("b",)), [3], with_logprobs=True)
    assert shown(events) == "a"
    assert shown_bytes(events) == b"ab"


def test_tokens_inside_a_stop_lose_their_logprobs() -> None:
    events = feed(make(stop=("ab",)), [2, 1, 2], with_logprobs=True)
    assert shown_bytes(events) == b"b"


def test_a_last_token_ends_with_stop_even_at_the_limit() -> None:
    choice = make(max_tokens=1)
    events = choice.accept(1, is_last=True)
    assert (shown(events), events[-1]) == ("a", Finish(0, "stop"))


def test_a_stop_string_cuts_a_last_token_too() -> None:
    choice = make(stop=("b",))
    events = choice.accept(3, is_last=True)
    assert (shown(events), events[-1]) == ("a", Finish(0, "stop"))
