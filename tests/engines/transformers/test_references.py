from __future__ import annotations

import pytest

from engines.errors import ModelLoadError
from engines.transformers.references import resolve, run_first

seen: list[str] = []


class Adapter:
    def __init__(self) -> None:
        self.suffix = "!"

    def loader(self, text: str) -> str:
        return text + self.suffix


def note(text: str) -> None:
    seen.append(text)


def test_a_method_is_one_of_an_object() -> None:
    assert resolve(f"{__name__}:Adapter.loader")("a") == "a!"


def test_a_function_and_a_class() -> None:
    assert resolve(f"{__name__}:note") is note
    assert resolve(f"{__name__}:Adapter") is Adapter


@pytest.mark.parametrize(
    "reference",
    ["no_such_module:a", f"{__name__}:nothing", f"{__name__}:Adapter.nothing", f"{__name__}:seen"],
)
def test_what_is_not_there_is_told(reference: str) -> None:
    with pytest.raises(ModelLoadError, match=reference.rpartition(":")[0]):
        resolve(reference)


def test_calls_come_first_and_in_order() -> None:
    run_first([(f"{__name__}:note", "a"), (f"{__name__}:note", "b")])
    assert seen == ["a", "b"]
