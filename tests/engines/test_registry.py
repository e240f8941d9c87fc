from __future__ import annotations

import pytest

from engines.errors import MissingDependency, UnknownEngine
from engines.registry import ENGINES, EngineEntry, create_engine


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownEngine, match="echo, llama_cpp"):
        create_engine("vlm")


def test_a_missing_library_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EngineEntry("no_such_library.engine:create", "no_such_library", "run `make it`")
    monkeypatch.setitem(ENGINES, "new", entry)
    with pytest.raises(MissingDependency, match=r"no_such_library.*run `make it`"):
        create_engine("new")


def test_an_import_error_of_our_own_is_not_mistaken_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ENGINES, "new", EngineEntry("engines.misspelt:create", "library"))
    with pytest.raises(ModuleNotFoundError, match="misspelt"):
        create_engine("new")
