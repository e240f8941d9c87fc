from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.engines.tiny_gguf import write_tiny_gguf

if TYPE_CHECKING:
    from engines.llama_cpp.core import LlamaCppCore

    MakeCore = Callable[..., LlamaCppCore]

PARLM_TINY = Path(__file__).parents[3] / "models" / "parlm-tiny" / "parlm-tiny-q8_0.gguf"


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a small model of random weights."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    pytest.importorskip("gguf", reason="gguf is not installed")
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def make_core(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeCore]:
    """A function that loads the random model; what it loaded is closed and checked at the end."""
    yield from _core_maker(tiny_gguf, monkeypatch)


@pytest.fixture
def make_trained_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeCore]:
    """The same with the trained model that comes with the project."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    if not PARLM_TINY.exists():
        pytest.skip("models/parlm-tiny is not built")
    yield from _core_maker(PARLM_TINY, monkeypatch)


@pytest.fixture
def core(make_core: MakeCore) -> LlamaCppCore:
    """The random model with four slots."""
    return make_core()


@pytest.fixture
def trained_core(make_trained_core: MakeCore) -> LlamaCppCore:
    """The trained model with four slots."""
    return make_trained_core()


def _core_maker(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeCore]:
    from llama_cpp import llama_cpp as native

    from engines.llama_cpp.core import LlamaCppCore, create_core

    chains: Counter[str] = Counter()
    for call, name in (("made", "llama_sampler_chain_init"), ("freed", "llama_sampler_free")):
        counted = _counted(getattr(native, name), chains, call)
        monkeypatch.setattr(native, name, counted)
    cores: list[LlamaCppCore] = []

    def make(**options: Any) -> LlamaCppCore:
        core = create_core(model_path=str(path), n_threads=1, **options)
        assert isinstance(core, LlamaCppCore)
        cores.append(core)
        return core

    yield make
    for core in cores:
        # Before `close`, so that a request that ended is what freed its things.
        is_idle = not core.has_work()
        assert not is_idle or chains["made"] == chains["freed"]
        core.close()
        assert not core._requests
        assert not core._choices
        assert not core.has_work()
        assert all(slot.sequence is None for slot in core._scheduler.slots)
    assert chains["made"] == chains["freed"]


def _counted(function: Callable[..., Any], counts: Counter[str], name: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        counts[name] += 1
        return function(*arguments)

    return call


def pytest_sessionfinish() -> None:
    """Close what the library leaves open on import, so that no warning ends the test run."""
    utils = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        file = getattr(utils, name, None)
        if file is not None:
            file.close()
