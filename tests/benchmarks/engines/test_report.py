"""What a run leaves behind."""

from dataclasses import replace

import msgspec

from benchmarks.engines.figures import Figures, Spread
from benchmarks.engines.report import COLUMNS, Results, Row, digits, show, to_json, to_markdown

FIGURES = Figures(
    tokens_per_second=100.0,
    ttft_mean=0.5,
    ttft_p99=0.75,
    worst_gap=0.012,
    ms_per_token=9.0,
    cpu_ms_per_token=None,
    client_ms_per_token=0.02,
    cached_tokens=416.0,
    others=None,
    load=1.5,
)


def row(peer: str, *speeds: float, model: str = "25M") -> Row:
    rounds = [replace(FIGURES, tokens_per_second=speed) for speed in speeds]
    return Row(model, "128-token prompts", "warm", 16, peer, rounds)


def lines(*rows: Row) -> list[str]:
    page = to_markdown(Results({"seed": "1"}, ["b is absent: not installed"], list(rows)))
    return page.splitlines()


def test_a_line_has_medians_spreads_and_the_ratio_to_the_first_of_its_case() -> None:
    first, second = [line for line in lines(row("a", 90, 100, 120), row("b", 50)) if "warm" in line]
    assert first == (
        "| 128-token prompts warm | 16 | a | 100 [90.0-120] | 1.00 | 500 [500-500] "
        "| 750 [750-750] | 12.0 [12.0-12.0] | 9.00 [9.00-9.00] |  | 416 |  | 1.50 |"
    )
    assert "| b | 50.0 [50.0-50.0] | 0.50 |" in second
    assert first.count("|") == len(COLUMNS) + 1


def test_each_model_has_a_table_of_its_own() -> None:
    page = lines(row("a", 90), row("a", 10, model="200M"))
    assert [line for line in page if line.startswith("## ")] == ["## 25M", "## 200M", "## Notes"]
    assert sum("| a |" in line and "| 1.00 |" in line for line in page) == 2


def test_json_keeps_every_round() -> None:
    results = Results({"seed": "1"}, [], [row("a", 90, 100)])
    assert msgspec.json.decode(to_json(results), type=Results) == results


def test_numbers_are_short() -> None:
    assert [digits(value) for value in (1234.5, 99.94, 9.999, 0.0)] == [
        "1234",
        "99.9",
        "10.00",
        "0.00",
    ]
    assert show(None) == ""
    assert show(Spread(0.5, 0.1, 2.0), 1e3) == "500 [100-2000]"
