from __future__ import annotations

import subprocess
import sys

import pytest

import engines.llama_cpp
from engines.errors import InvalidOption, MissingDependency
from engines.registry import create_engine


def test_without_the_library_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines.llama_cpp, "find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match="pip install"):
        create_engine("llama_cpp", model_path="model.gguf")


def test_without_the_library_for_constraints_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"llama_cpp": object()}
    monkeypatch.setattr(engines.llama_cpp, "find_spec", found.get)
    with pytest.raises(MissingDependency, match="llguidance"):
        create_engine("llama_cpp", model_path="model.gguf")


def test_the_package_imports_neither_the_library_nor_numpy() -> None:
    code = "import engines.llama_cpp, sys; print({'llama_cpp', 'numpy'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"


def test_bad_options_are_refused_before_a_process_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines.llama_cpp, "find_spec", lambda _: object())
    with pytest.raises(InvalidOption, match="n_slots must be at least 1"):
        engines.llama_cpp.create(model_path="model.gguf", n_slots=0)
    with pytest.raises(InvalidOption, match="did you mean n_slots"):
        engines.llama_cpp.create(model_path="model.gguf", n_slotz=1)


def test_the_engine_is_supervised_and_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.llama_cpp, "find_spec", lambda _: object())
    engine = engines.llama_cpp.create(model_path="model.gguf")
    assert engine.name == "llama_cpp"
    assert not engine.health().is_ready
