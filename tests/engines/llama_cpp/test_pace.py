from __future__ import annotations

import pytest

from engines.llama_cpp.pace import LEAST_TOKENS, Pace


def test_nothing_is_known_before_the_first_prompt() -> None:
    assert Pace(0.5, 512).budget(4) == 512


def test_a_step_beside_answers_is_as_long_as_it_should_be() -> None:
    pace = Pace(0.5, 512)
    pace.note(0, 0.1)
    pace.note(512, 1.124)
    assert pace.budget(1) == pytest.approx(200, abs=1)
    assert pace.budget(0) == 512


@pytest.mark.parametrize("seconds", [0.001, 100.0])
def test_a_budget_is_neither_useless_nor_boundless(seconds: float) -> None:
    pace = Pace(0.5, 256)
    pace.note(256, seconds)
    assert LEAST_TOKENS <= pace.budget(1) <= 256


def test_it_follows_a_machine_that_becomes_slower() -> None:
    pace = Pace(0.5, 512)
    for _ in range(20):
        pace.note(100, 0.1)
    quick = pace.budget(1)
    for _ in range(20):
        pace.note(100, 1.0)
    assert pace.budget(1) < quick / 5


def test_a_few_tokens_say_nothing_of_the_cost_of_many() -> None:
    pace = Pace(0.5, 512)
    pace.note(1, 5.0)
    assert pace.budget(1) == 512


def test_slow_answers_leave_the_least() -> None:
    pace = Pace(0.5, 512)
    pace.note(0, 2.0)
    pace.note(100, 2.5)
    assert pace.budget(3) == LEAST_TOKENS
