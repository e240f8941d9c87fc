"""The lists of architectures, compared with the libraries they speak of."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from engines.architectures import engine_support

ENGINES = ("llama_cpp", "vllm", "transformers")


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_both_runs_and_is_refused(engine: str) -> None:
    support = engine_support(engine)
    assert support.runs
    assert not support.runs & support.refused.keys()
    assert support.needs_remote_code <= support.runs


def test_an_engine_without_a_list_refuses_nothing() -> None:
    assert engine_support("echo").refused == {}


def test_the_installed_llama_cpp_knows_these_names() -> None:
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        pytest.skip("llama-cpp-python is not installed")
    (library,) = (Path(spec.origin).parent / "lib").glob("libllama.[sd]*")
    strings = {found.decode() for found in re.findall(rb"[\w.-]+", library.read_bytes())}
    # Compilers write short strings into the code, so only the longer ones stand there whole.
    names = {name for name in engine_support("llama_cpp").runs if len(name) > 5}
    assert names
    assert names <= strings


def test_the_installed_transformers_has_these_models() -> None:
    """By the folders of the package: to import it takes seconds."""
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        pytest.skip("transformers is not installed")
    source = Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py"
    known = set(re.findall(r'\("([\w.-]+)",', source.read_text(encoding="utf-8")))
    ours = {"chatglm", "chatglm-v1"}
    assert engine_support("transformers").runs - known == ours


def test_vllm_runs_what_transformers_names() -> None:
    """The two lists use the same names, so a spelling that is only in one is wrong."""
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        pytest.skip("transformers is not installed")
    source = Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py"
    text = source.read_text(encoding="utf-8")
    missing = {n for n in engine_support("vllm").runs if f'("{n}",' not in text}
    assert missing == {"chatglm"}
