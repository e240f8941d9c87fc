"""Options as an operator wrote them: taken exactly, or refused by name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from engines.errors import InvalidOption
from engines.options import read_options


@dataclass(frozen=True, slots=True)
class Options:
    path: str
    count: int | None = None
    share: float = 0.5
    is_fast: bool = False
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError(f"share must be at most 1, not {self.share}")


def refusal(**given: object) -> tuple[str, str]:
    with pytest.raises(InvalidOption) as caught:
        read_options(Options, {"path": "p"} | given)
    return caught.value.option, str(caught.value)


def test_values_of_toml_and_json_become_the_fields() -> None:
    options = read_options(Options, {"path": "p", "count": 3, "share": 1, "names": ["a", "b"]})
    assert options == Options("p", 3, 1.0, False, ("a", "b"))
    assert read_options(Options, {"path": "p", "count": None}) == Options("p")


def test_an_unknown_key_is_named_with_the_known_ones() -> None:
    option, message = refusal(coumt=3)
    assert option == "coumt"
    assert "did you mean count? Known are path, count, share, is_fast, names" in message
    assert "there is no such option; known are path" in refusal(zzz=3)[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("count", "3"), ("count", 3.5), ("count", True), ("is_fast", 1), ("names", "a")],
)
def test_a_value_of_another_type_is_named(name: str, value: object) -> None:
    option, message = refusal(**{name: value})
    assert option == name
    assert message.startswith(f"{name}: Expected ")


def test_what_the_options_refuse_themselves() -> None:
    assert refusal(share=2.0)[1] == "share must be at most 1, not 2.0"


def test_a_missing_value_is_named() -> None:
    with pytest.raises(InvalidOption, match="path"):
        read_options(Options, {})
