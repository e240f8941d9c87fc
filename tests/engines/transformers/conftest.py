from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.engines.tiny_folder import write_tiny_folder
from tests.engines.transformers.loaders import DEFAULT_LOADER

if TYPE_CHECKING:
    from engines.transformers.core import TransformersCore

    MakeCore = Callable[..., TransformersCore]

PARLM_TINY = Path(__file__).parents[3] / "models" / "parlm-tiny" / "hf"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small llama of random weights, a token for each byte."""
    return write_tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def make_core(tiny_folder: Path) -> Iterator[MakeCore]:
    """A function that loads the random model; what it loaded is closed and checked at the end."""
    yield from _core_maker(tiny_folder)


@pytest.fixture
def make_trained_core() -> Iterator[MakeCore]:
    """The same with the trained model that comes with the project."""
    if not PARLM_TINY.exists():
        pytest.skip("models/parlm-tiny is not built")
    yield from _core_maker(PARLM_TINY)


@pytest.fixture
def core(make_core: MakeCore) -> TransformersCore:
    """The random model with eight slots."""
    return make_core()


@pytest.fixture
def trained_core(make_trained_core: MakeCore) -> TransformersCore:
    """The trained model with eight slots."""
    return make_trained_core()


def _core_maker(path: Path) -> Iterator[MakeCore]:
    from engines.transformers.core import TransformersCore, create_core

    cores: list[TransformersCore] = []

    def make(**options: Any) -> TransformersCore:
        usual = {"model_path": str(path), "loader": DEFAULT_LOADER, "device": "cpu", "n_threads": 1}
        core = create_core(**(usual | options))
        assert isinstance(core, TransformersCore)
        cores.append(core)
        return core

    yield make
    for core in cores:
        core.close()
        assert not core.has_work()
        assert not core._joined
        assert not core._batch.rows
