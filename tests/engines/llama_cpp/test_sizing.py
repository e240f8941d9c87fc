from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.llama_cpp import sizing
from engines.llama_cpp.config import LlamaCppOptions
from engines.llama_cpp.sizing import Size, choose_size, free_memory

# A 13B llama: 40 layers, 40 heads of 128, keys and values in half precision.
PER_TOKEN = 40 * 40 * (128 + 128) * 2
GB = 10**9


def size(free: int | None, trained: int = 4096, **options: Any) -> Size:
    return choose_size(LlamaCppOptions("model.gguf", **options), trained, PER_TOKEN, free)


@pytest.mark.parametrize(
    ("free", "chosen"),
    [
        (None, Size(4, 4096)),
        (100 * GB, Size(4, 4096)),
        (10 * GB, Size(2, 4096)),
        (5 * GB, Size(1, 4096)),
        (2 * GB, Size(1, 1792)),
        (0, Size(1, 512)),
        (-9 * GB, Size(1, 512)),
    ],
)
def test_first_the_slots_then_the_context_shrink(free: int | None, chosen: Size) -> None:
    assert size(free) == chosen


def test_what_was_asked_for_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    assert size(2 * GB, n_slots=3, context_length=4096) == Size(3, 4096)
    assert "2.0 GB are free: 3 of 4096 are used" in caplog.text
    assert size(5 * GB, n_slots=3) == Size(3, 1280)
    assert size(5 * GB, context_length=2048) == Size(2, 2048)


def test_a_short_context_does_not_grow() -> None:
    assert size(0, trained=128) == Size(1, 128)


def test_a_model_without_keys_and_values_takes_the_defaults() -> None:
    assert choose_size(LlamaCppOptions("model.gguf"), 4096, 0, 0) == Size(4, 4096)


def test_what_fits_is_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    size(100 * GB)
    assert not caplog.records


def test_the_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal:  2000 kB\nMemAvailable:    1000 kB\nHugePages_Total:   0\n")
    monkeypatch.setattr(sizing, "_MEMORY", memory)
    monkeypatch.setattr(sizing, "_CGROUP", tmp_path)
    assert free_memory() == 1000 * 1024
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 5\nactive_file 20000\ninactive_file 3000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() == 1000 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    assert free_memory() == 100_000 + 23_000


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "_MEMORY", tmp_path / "none")
    assert free_memory() is None
