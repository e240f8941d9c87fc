"""Damaged model files: refused before native code sees them, and survived when they are not."""

from __future__ import annotations

import random
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path

import pytest

from engines.errors import EngineCrashed, EngineError, ModelLoadError
from engines.model_files import describe
from engines.supervisor import SupervisedEngine
from tests.engines.driving import ask, collect
from tests.engines.tiny_gguf import write_tiny_gguf

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    pytest.importorskip("gguf", reason="gguf is not installed")
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf").read_bytes()


def damage(good: bytes, seed: int) -> bytes:
    """Flip some bytes of the header; every third time cut the file short as well."""
    rng, content = random.Random(seed), bytearray(good)
    for _ in range(rng.randint(1, 20)):
        content[rng.randrange(4, 9000)] = rng.randrange(256)
    return bytes(content[: rng.randrange(len(content))] if seed % 3 == 0 else content)


def test_damaged_files_are_read_or_refused(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    refused = 0
    for seed in range(300):
        path.write_bytes(damage(good, seed))
        try:
            describe("m", path)
        except ModelLoadError:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize("seed", range(4))
async def test_a_damaged_file_past_the_check_ends_the_child_at_worst(
    good: bytes, tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damage(good, seed))
    engine = SupervisedEngine(
        name="llama_cpp",
        core="engines.llama_cpp.core:create_core",
        options={"model_path": path, "n_threads": 1},
    )
    async with aclosing(engine):
        try:
            await engine.start()
            await collect(engine, ask("hello", max_tokens=4))
        except (ModelLoadError, EngineCrashed) as error:
            assert isinstance(error, EngineError)
            assert not engine.health().is_ready
