"""Prompts have the length that was asked for, in tokens of the model that is measured."""

from pathlib import Path

import pytest

from benchmarks.engines.random_gguf import Shape, words, write_model
from benchmarks.engines.workloads import SharedPrefix, Unlike
from engines.types import PartsPrompt, Text

TINY = Shape(width=64, layers=1, feed_forward=64, heads=2, kv_heads=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("random") / "tiny.gguf"
    write_model(path, TINY)
    return path


def test_prompts_have_the_tokens_asked_for(tiny: Path) -> None:
    pytest.importorskip("llama_cpp", reason="the llama_cpp engine is not installed")
    from engines.llama_cpp.core import create_core

    core = create_core(model_path=str(tiny), n_slots=1, context_length=64)
    ((_, prompts),) = Unlike(3, 128).waves([1])
    shared = SharedPrefix(2, prefix_tokens=40, tail_tokens=9)
    for _, more in shared.waves([1]):
        prompts += more
    counts = [len(core.tokenize(PartsPrompt((Text(prompt),)))) for prompt in prompts]
    core.close()
    assert counts == [128] * 3 + [49] * 4


def test_the_same_shape_is_the_same_file(tiny: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "again.gguf", TINY)
    assert (tmp_path / "again.gguf").read_bytes() == tiny.read_bytes()


def test_words_are_all_different() -> None:
    assert len(set(words())) == len(words()) == 10_000


def test_no_wave_has_prompts_of_another() -> None:
    seen = [
        prompt
        for seed in ([1, 0, 0], [1, 0, 1], [1, 1, 0], [2, 0, 0])
        for streams in (1, 4)
        for _, prompts in Unlike(streams, 16).waves(seed)
        for prompt in prompts
    ]
    assert len(set(seen)) == len(seen)


def test_a_cold_wave_and_a_warm_one_share_their_prefix_and_nothing_else() -> None:
    (cold, first), (warm, second) = SharedPrefix(3, 40, 9).waves([1])
    assert (cold, warm) == ("cold", "warm")
    parts = [prompt.split() for prompt in first + second]
    assert len({tuple(part[:39]) for part in parts}) == 1
    assert len({tuple(part[39:]) for part in parts}) == 6
    other = next(SharedPrefix(3, 40, 9).waves([2]))[1][0].split()
    assert other[:39] != parts[0][:39]
