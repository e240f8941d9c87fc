from __future__ import annotations

import numpy as np
import pytest

from engines.llama_cpp.drafting import PromptLookup
from engines.llama_cpp.slots import Slot


def lookup(tokens: list[int], count: int = 3) -> list[int]:
    return PromptLookup().continuation(np.array(tokens, np.int32), count)


@pytest.mark.parametrize(
    ("tokens", "guess"),
    [
        ([1, 2, 3, 4, 5, 6, 1, 2, 3], [4, 5, 6]),
        ([1, 2, 3, 4, 1, 2, 3, 9, 1, 2, 3], [9, 1, 2]),
        ([7, 2, 3, 4, 5, 8, 2, 3], [4, 5, 8]),
        ([5, 5, 5], [5]),
        ([1, 2, 3], []),
        ([1], []),
        ([], []),
    ],
    ids=["three", "latest", "two", "itself", "nowhere", "one", "none"],
)
def test_what_followed_before_is_guessed(tokens: list[int], guess: list[int]) -> None:
    assert lookup(tokens) == guess


def test_each_slot_gets_as_many_as_asked() -> None:
    slot = Slot(0, np.array([1, 2, 3, 4, 1, 2, 3, 0, 0], np.int32), length=7)
    assert PromptLookup().propose({slot: 1}) == {slot: [4]}
