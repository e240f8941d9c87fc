from __future__ import annotations

import numpy as np
import pytest

from engines.llama_cpp.slots import Prefix, Sequence, Sharing, Slot


def slot(tokens: list[int], cached: int | None = None, number: int = 0) -> Slot:
    space = np.zeros(16, np.int32)
    space[: len(tokens)] = tokens
    return Slot(number, space, len(tokens), len(tokens) if cached is None else cached)


def prompt(*tokens: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(tokens, np.int32)


def test_shared_tokens_stop_at_the_first_difference_and_before_the_last() -> None:
    held = slot([1, 2, 3, 4])
    assert held.shared_with(prompt(1, 2, 9, 4)) == 2
    assert held.shared_with(prompt(1, 2, 3, 4, 5, 6)) == 4
    assert held.shared_with(prompt(1, 2, 3, 4)) == 3
    assert held.shared_with(prompt(1)) == 0


def test_what_is_known_is_offered_before_it_is_computed() -> None:
    prefix = Prefix(slot([1, 2, 3, 4], cached=1), 3)
    assert Sharing().offered(prefix.slot, prompt(1, 2, 3, 9)) == 3
    assert not prefix.is_computed


@pytest.mark.parametrize(
    ("tokens", "cached", "is_running", "offered"),
    [
        ([1, 2, 3], 3, False, 3),
        ([1, 2, 3, 4], 4, False, 0),
        ([1, 2, 3, 4], 1, True, 3),
        ([1, 2, 3, 4], 4, True, 0),
    ],
    ids=["whole", "more", "running", "past it"],
)
def test_a_memory_that_cannot_be_cut_offers_all_or_nothing(
    tokens: list[int], cached: int, is_running: bool, offered: int
) -> None:
    held = slot(tokens, cached)
    if is_running:
        held.sequence = Sequence("a", prompt(*tokens))
    assert Sharing(can_cut=False).offered(held, prompt(1, 2, 3, 9, 9)) == offered


def test_a_short_prefix_of_a_long_text_is_not_worth_copying() -> None:
    sharing = Sharing(min_copied=4)
    assert sharing.is_worth_copying(Prefix(slot([1] * 8), 4), 0)
    assert not sharing.is_worth_copying(Prefix(slot([1] * 8), 4), 1)
    long = slot([1] * 8)
    long.length = 64 * 5
    assert not sharing.is_worth_copying(Prefix(long, 4), 0)
    assert not Sharing(min_copied=0).is_worth_copying(Prefix(slot([1]), 0), 0)


def test_the_best_prefix_is_the_longest_then_one_that_is_computed_then_the_oldest() -> None:
    short, late, new, old = (
        slot([1, 2]),
        slot([1, 2, 3], cached=0),
        slot([1, 2, 3]),
        slot([1, 2, 3]),
    )
    new.last_used = 9
    best = Sharing().best([short, late, new, old], prompt(1, 2, 3, 4))
    assert best == Prefix(old, 3)
    assert Sharing().best([], prompt(1)) is None
