from __future__ import annotations

import math

import numpy as np
import pytest

from engines.decoding.logprobs import LEAST_LOGPROB, LogprobQueue, LogprobReader
from engines.types import TokenLogprob

PIECES = [b"a", b"b", b"\xe6", b""]
NAMES = [b"a", b"b", b"\xe6", b"</s>"]
ROW = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32)) + 5


def read(token: int, n_top: int) -> TokenLogprob:
    return LogprobReader(PIECES, NAMES).read(ROW, token, n_top)


def measured(token: TokenLogprob) -> float:
    assert token.logprob is not None
    return token.logprob


def test_the_logprob_is_the_log_of_the_probability() -> None:
    assert math.exp(measured(read(1, 0))) == pytest.approx(0.2)


def test_no_top_tokens_unless_asked() -> None:
    assert read(0, 0).top == ()


def test_top_tokens_come_likeliest_first() -> None:
    top = read(0, 3).top
    assert [round(math.exp(entry.logprob), 5) for entry in top] == [0.4, 0.3, 0.2]


def test_all_of_a_small_vocabulary_sums_to_one() -> None:
    assert sum(math.exp(entry.logprob) for entry in read(0, 20).top) == pytest.approx(1.0)


def test_a_control_token_is_named_among_the_top_but_adds_no_bytes() -> None:
    assert read(0, 1).top[0].token == "</s>"
    assert read(3, 0).bytes == b""


def test_half_a_character_has_its_exact_bytes() -> None:
    assert (read(2, 0).token, read(2, 0).bytes) == ("\ufffd", b"\xe6")


def test_impossible_tokens_have_a_finite_logprob() -> None:
    row = np.array([0.0, -np.inf, 0.0, 0.0], np.float32)
    assert LogprobReader(PIECES, NAMES).read(row, 1, 0).logprob == LEAST_LOGPROB


def entry(text: str) -> TokenLogprob:
    return TokenLogprob(text, -1.0, text.encode())


def test_a_logprob_waits_for_its_text() -> None:
    queue = LogprobQueue()
    queue.add(entry("ab"), 0, 2)
    assert queue.take(1) == ()
    assert queue.take(2) == (entry("ab"),)
    assert queue.take(2) == ()


def test_at_a_stop_only_tokens_that_show_in_part_are_left() -> None:
    queue = LogprobQueue()
    queue.add(entry("ab"), 0, 2)
    queue.add(entry("c"), 2, 3)
    assert queue.take_last(1) == (entry("ab"),)
    assert queue.take_last(None) == ()
