"""The whole program, on the built-in model, for clients nobody here wrote."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.serving import ROOT, Program, program

WEIGHTS = ROOT / "models" / "parlm-tiny" / "parlm-tiny-q8_0.gguf"


@pytest.fixture(scope="session")
def parlm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """`parlm serve` with the built-in model and the echo model."""
    pytest.importorskip("llama_cpp", reason="the llama_cpp engine is not installed")
    folder: Path = tmp_path_factory.mktemp("parlm")
    (folder / "models.toml").write_text('[models.parlm-tiny]\naliases = ["gpt-3.5-turbo"]\n')
    with program(folder, LLM_MODEL="parlm-tiny,echo", LIMIT_MODEL_CONCURRENCY="8") as running:
        yield running


@pytest.fixture(scope="session")
def client(parlm: Program) -> Iterator[openai.OpenAI]:
    """The openai package, unmodified."""
    with openai.OpenAI(base_url=parlm.base_url, api_key="unused", max_retries=0) as client:
        yield client
