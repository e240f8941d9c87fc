"""What is kept from one start to the next, and that losing it does no harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.llama_cpp.thread_cache import ThreadCache, Threads

CHOICE = Threads(1, 2)


def test_a_choice_is_kept_for_its_machine_and_model(tmp_path: Path) -> None:
    ThreadCache(tmp_path / "a" / "b", "here").write(CHOICE)
    assert ThreadCache(tmp_path / "a" / "b", "here").read(2) == CHOICE
    assert ThreadCache(tmp_path / "a" / "b", "there").read(2) is None
    assert len(list((tmp_path / "a" / "b").iterdir())) == 1


def test_a_later_choice_replaces_an_earlier_one(tmp_path: Path) -> None:
    cache = ThreadCache(tmp_path, "here")
    cache.write(CHOICE)
    cache.write(Threads(2, 2))
    assert cache.read(2) == Threads(2, 2)


def test_more_threads_than_there_are_processors_are_not_believed(tmp_path: Path) -> None:
    cache = ThreadCache(tmp_path, "here")
    cache.write(CHOICE)
    assert cache.read(1) is None
    cache.write(Threads(0, 1))
    assert cache.read(2) is None


@pytest.mark.parametrize("content", [b"", b"{", b'{"threads": 3}', b"\xff", b"[]"])
def test_a_damaged_file_is_as_none(tmp_path: Path, content: bytes) -> None:
    cache = ThreadCache(tmp_path, "here")
    cache.write(CHOICE)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert cache.read(2) is None


def test_a_folder_that_cannot_be_written_to_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "file").write_text("in the way")
    cache = ThreadCache(tmp_path / "file", "here")
    cache.write(CHOICE)
    assert cache.read(2) is None
    assert "not kept" in caplog.text


def test_how_a_choice_reads() -> None:
    assert str(Threads(1, 1)) == "1 thread"
    assert str(Threads(4, 4)) == "4 threads"
    assert str(CHOICE) == "1 and, for several tokens, 2 threads"
