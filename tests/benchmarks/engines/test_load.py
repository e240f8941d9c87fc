"""Bytes of an answer, as they come from a socket, become times and counts."""

import pytest

from benchmarks.engines.load import LoadError, Piece, read_stream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = b'data: {"choices":[{"index":0,"text":"one","finish_reason":null}]}\n\n'
SECOND = b'data: {"choices":[{"index":0,"text":" two"}],"usage":null}\n\n'
LAST = b'data: {"choices":[{"index":0,"text":"","finish_reason":"length"}]}\n\n'
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9,'
    b'"prompt_tokens_details":{"cached_tokens":3}}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer(*events: bytes) -> bytes:
    return HEAD + b"".join(map(chunk, events)) + b"0\r\n\r\n"


def test_a_chunk_came_when_its_last_byte_did() -> None:
    first, second = chunk(FIRST), chunk(SECOND)
    pieces: list[Piece] = [
        (10.1, HEAD + first[:20]),
        (10.2, first[20:] + second[:-3]),
        (10.3, second[-3:] + chunk(b": ping\n\n")),
        (10.4, chunk(LAST) + chunk(USAGE) + chunk(DONE) + b"0\r\n\r\n"),
    ]
    stream = read_stream(pieces, started=10.0, max_tokens=2)
    assert stream.stamps == pytest.approx((0.2, 0.2))
    assert (stream.tokens, stream.prompt_tokens, stream.cached_tokens) == (2, 7, 3)


def test_it_does_not_matter_where_the_bytes_are_cut() -> None:
    whole = answer(FIRST, SECOND, LAST, USAGE, DONE)
    for cut in range(1, len(whole)):
        stream = read_stream([(1.0, whole[:cut]), (2.0, whole[cut:])], 0.0, 2)
        assert len(stream.stamps) == 2


def test_without_usage_the_tokens_are_those_asked_for() -> None:
    stream = read_stream([(1.0, answer(FIRST, SECOND, LAST, DONE))], 0.0, 64)
    assert (stream.tokens, stream.prompt_tokens, stream.cached_tokens) == (64, None, None)


@pytest.mark.parametrize(
    "data",
    [
        answer(FIRST, SECOND),  # broke off
        answer(FIRST, LAST.replace(b"length", b"stop"), USAGE),  # ended by itself
        answer(b'data: {"error":{"message":"out of memory"}}\n\n'),
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy",
        b"nonsense",
    ],
)
def test_what_is_no_whole_answer_is_an_error_that_shows_it(data: bytes) -> None:
    with pytest.raises(LoadError) as caught:
        read_stream([(1.0, data)], 0.0, 2)
    assert repr(data[-20:])[2:-1] in str(caught.value)


def test_another_number_of_tokens_is_an_error() -> None:
    with pytest.raises(LoadError, match="no stream of 3 tokens"):
        read_stream([(1.0, answer(FIRST, SECOND, LAST, USAGE, DONE))], 0.0, 3)
