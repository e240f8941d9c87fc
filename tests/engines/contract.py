"""The engines that the contract suite runs over, each with what it needs to be tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from engines.base import Engine
from engines.registry import create_engine
from engines.supervisor import SupervisedEngine
from tests.engines.tiny_gguf import write_tiny_gguf

PARLM_TINY = Path(__file__).parents[2] / "models" / "parlm-tiny" / "parlm-tiny-q8_0.gguf"
PARLM_TINY_FOLDER = PARLM_TINY.parent / "hf"
MAX_REQUESTS = 4


@dataclass(frozen=True)
class Case:
    """One engine. `build` gets a folder to put files into, and may skip the test."""

    id: str
    build: Callable[[Path], Engine]
    # What never ends by itself takes this long at least; llama.cpp is slowed by its context.
    is_echo: bool = False


def echo(_: Path) -> Engine:
    return create_engine("echo", max_requests=MAX_REQUESTS, tokens_per_second=200)


def echo_child(_: Path) -> Engine:
    return SupervisedEngine(
        name="echo",
        core="engines.echo:create_core",
        options={"max_requests": MAX_REQUESTS, "tokens_per_second": 200},
    )


def llama_cpp_random(folder: Path) -> Engine:
    _need_llama_cpp()
    pytest.importorskip("gguf", reason="gguf is not installed")
    path = folder / "tiny.gguf"
    return _llama_cpp(path if path.exists() else write_tiny_gguf(path))


def llama_cpp_parlm_tiny(_: Path) -> Engine:
    _need_llama_cpp()
    if not PARLM_TINY.exists():
        pytest.skip("models/parlm-tiny is not built")
    return _llama_cpp(PARLM_TINY)


def _need_llama_cpp() -> None:
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed")


def _llama_cpp(path: Path) -> Engine:
    return create_engine(
        "llama_cpp", model_path=str(path), n_threads=1, n_slots=MAX_REQUESTS, max_queue=0
    )


def transformers_random(folder: Path) -> Engine:
    _need_transformers()
    from tests.engines.tiny_folder import write_tiny_folder

    path = folder / "tiny"
    return _transformers(path if path.exists() else write_tiny_folder(path))


def transformers_parlm_tiny(_: Path) -> Engine:
    _need_transformers()
    if not PARLM_TINY_FOLDER.exists():
        pytest.skip("models/parlm-tiny is not built")
    return _transformers(PARLM_TINY_FOLDER)


def _need_transformers() -> None:
    if find_spec("transformers") is None or find_spec("torch") is None:
        pytest.skip("transformers is not installed")


def _transformers(path: Path) -> Engine:
    return create_engine(
        "transformers",
        model_path=str(path),
        loader="adapters.builtin.default:DefaultLLMAdapter.loader",
        device="cpu",
        n_threads=1,
        n_slots=MAX_REQUESTS,
        max_queue=0,
    )


CASES = (
    Case("echo", echo, is_echo=True),
    Case("echo-child", echo_child, is_echo=True),
    Case("llama_cpp-random", llama_cpp_random),
    Case("llama_cpp-parlm-tiny", llama_cpp_parlm_tiny),
    Case("transformers-random", transformers_random),
    Case("transformers-parlm-tiny", transformers_parlm_tiny),
)
