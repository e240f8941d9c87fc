from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.decoding.detokenize import Utf8Decoder


def decode(pieces: list[bytes]) -> list[str]:
    decoder = Utf8Decoder()
    return [*(decoder.push(piece) for piece in pieces), decoder.flush()]


@given(st.lists(st.binary(max_size=6)))
def test_streamed_text_is_the_whole_text(pieces: list[bytes]) -> None:
    assert "".join(decode(pieces)) == b"".join(pieces).decode("utf-8", "replace")


@given(st.text(), st.data())
def test_any_cut_of_valid_text_gives_it_back(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)))))
    bounds = [0, *cuts, len(raw)]
    pieces = [raw[a:b] for a, b in pairwise(bounds)]
    assert "".join(decode(pieces)) == text


def test_a_character_comes_with_its_last_byte() -> None:
    assert decode([b"\xe6", b"\x97", b"\xa5!"]) == ["", "", "日!", ""]


def test_an_unfinished_character_becomes_a_replacement_at_the_end() -> None:
    assert decode([b"a\xf0\x9f\x98"]) == ["a", "\ufffd"]


@pytest.mark.parametrize("piece", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5"])
def test_bytes_that_cannot_be_utf8_are_replaced_at_once(piece: bytes) -> None:
    decoder = Utf8Decoder()
    assert set(decoder.push(piece)) == {"\ufffd"}
    assert not decoder.has_pending


def test_pending_bytes_are_told() -> None:
    decoder = Utf8Decoder()
    decoder.push(b"\xe6\x97")
    assert decoder.has_pending
    decoder.push(b"\xa5")
    assert not decoder.has_pending
