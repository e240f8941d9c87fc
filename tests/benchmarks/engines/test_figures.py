"""Figures of hand-made waves, which can be reckoned on paper."""

import pytest

from benchmarks.engines.figures import figures, percentile, spreads
from benchmarks.engines.load import Stream, Wave
from benchmarks.engines.measure import Measured

WAVE = Wave(
    (
        Stream((0.1, 0.2, 0.5), tokens=3, prompt_tokens=9, cached_tokens=4),
        Stream((0.3, 0.4), tokens=3, prompt_tokens=9, cached_tokens=0),
    ),
    seconds=0.5,
)


def measured(cpu_seconds: float | None = 0.3) -> Measured:
    return Measured(WAVE, cpu_seconds, client_seconds=0.006, others=0.5, load=2.0)


def test_figures_of_one_wave() -> None:
    shown = figures([measured()])
    assert shown.tokens_per_second == pytest.approx(12)
    assert shown.ttft_mean == pytest.approx(0.2)
    assert shown.ttft_p99 == pytest.approx(0.3)
    assert shown.worst_gap == pytest.approx(0.3)
    assert shown.ms_per_token == pytest.approx((200 + 50) / 2)
    assert shown.cpu_ms_per_token == pytest.approx(50)
    assert shown.client_ms_per_token == pytest.approx(1)
    assert (shown.cached_tokens, shown.others, shown.load) == (2, 0.5, 2)


def test_waves_of_a_round_count_together() -> None:
    assert figures([measured(0.3), measured(0.6)]).cpu_ms_per_token == pytest.approx(75)


def test_what_cannot_be_seen_is_unknown_not_zero() -> None:
    shown = figures([measured(None)])
    assert shown.cpu_ms_per_token is None
    assert spreads([shown])["cpu_ms_per_token"] is None


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(200, 0, -1)]
    assert percentile(values, 99) == 198
    assert percentile([5.0], 99) == 5
    assert percentile([1.0, 2.0], 50) == 1


def test_the_spread_of_rounds() -> None:
    rounds = [figures([measured(cpu)]) for cpu in (0.6, 0.3, 1.2)]
    spread = spreads(rounds)["cpu_ms_per_token"]
    assert spread is not None
    assert (spread.median, spread.least, spread.greatest) == pytest.approx((100, 50, 200))
