"""The decoder of server-sent events, cut at every byte."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.cli.sse import EventDecoder, EventTooLarge

# What str.splitlines takes for line ends, and what the format takes for one, among other text.
TEXT = st.text(st.sampled_from("ab :\u0085\u2028\u2029\x0b\x0c\x1c🙂\ufeff") | st.characters())
ONE_LINE = TEXT.map(lambda text: text.replace("\r", "").replace("\n", ""))
END = st.sampled_from(["\n", "\r", "\r\n"])


def decode(*blocks: bytes) -> list[str]:
    decoder = EventDecoder()
    return [data for block in blocks for data in decoder.feed(block)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(bounds)]


@given(
    st.lists(st.lists(ONE_LINE, min_size=1), max_size=5),
    END,
    st.lists(st.integers(0, 10**6), max_size=30),
)
def test_any_events_survive_any_cut(events: list[list[str]], end: str, places: list[int]) -> None:
    stream = "".join(
        "".join(f"data: {line}{end}" for line in lines) + f": ping{end}id: 7{end}{end}"
        for lines in events
    ).encode("utf-8", "replace")
    expected = [
        "\n".join(lines).encode("utf-8", "replace").decode("utf-8", "replace") for lines in events
    ]
    assert decode(*cut(stream, places)) == expected


@given(st.binary(), st.lists(st.integers(0, 10**6), max_size=30))
def test_where_a_stream_is_cut_makes_no_difference(stream: bytes, places: list[int]) -> None:
    assert decode(*cut(stream, places)) == decode(stream)


def test_a_stream_in_single_bytes() -> None:
    stream = "\ufeffdata: one\r\n\r\n: comment\r\rdata:two\rdata: three\r\n\ndata\n\n".encode()
    assert decode(*(bytes([byte]) for byte in stream)) == ["one", "two\nthree", ""]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"", []),
        (b"\n\n\n", []),
        (b"data: cut off", []),
        (b"data: cut off\n", []),
        (b": only a comment\n\n", []),
        (b"event: error\nid: 1\nretry: 5\n\n", []),
        (b"data:  two spaces\n\n", [" two spaces"]),
        (b"data:\n\n", [""]),
        (b"databases: no\n\n", []),
        (b"data: \xff\xf0\x9f\n\n", ["\ufffd\ufffd"]),
        ("data: a\u2028b\u0085c\n\n".encode(), ["a\u2028b\u0085c"]),
        (b"data: 1\n\ndata: 2\n\ndata: 3", ["1", "2"]),
    ],
)
def test_the_format(stream: bytes, events: list[str]) -> None:
    assert decode(stream) == events


@pytest.mark.parametrize("line", [b"data: x\n", b"xxxxxxxx", b": xxxxx"])
def test_an_endless_event_is_refused(line: bytes) -> None:
    decoder = EventDecoder(max_bytes=1000)
    with pytest.raises(EventTooLarge, match="1000 bytes"):
        for _ in range(200):
            decoder.feed(line)


def test_many_comments_and_events_are_no_large_event() -> None:
    decoder = EventDecoder(max_bytes=100)
    for _ in range(100):
        assert decoder.feed(b": ping\n\ndata: some words\n\n: ping\n") == ["some words"]
        decoder.feed(b": ping ping ping\n" * 10)
