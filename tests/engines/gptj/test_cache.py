"""Where conversions are kept, when they are used again, and that none is ever half there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engines.errors import ModelLoadError
from engines.gguf import read_gguf
from engines.gptj import cache
from tests.engines.gptj_files import GPTJ, Q4_0
from tests.serving import ROOT

MODEL = GPTJ(n_embd=32, n_layer=1)


class Progress:
    """Counts the bytes of conversions."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def __call__(self, done: int, total: int) -> None:
        assert 0 < done <= total
        self.done.append(done)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    folder = tmp_path / "models"
    folder.mkdir()
    path = folder / "ggml-gpt4all-j-v1.3-groovy.bin"
    path.write_bytes(MODEL.pack(Q4_0))
    return path


def refuse_folder(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Let no file be opened in these folders: tests may run as root, who may write anywhere."""
    original = Path.open

    def open_(self: Path, mode: str = "r", **options: object) -> object:
        if self.parent in folders and mode != "rb":
            raise PermissionError(13, "Permission denied")
        return original(self, mode, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", open_)


def is_whole(path: Path) -> bool:
    return read_gguf(path).file_size == path.stat().st_size


def test_beside_the_source_and_only_once(source: Path) -> None:
    first, again = Progress(), Progress()
    path = cache.converted(source, first)
    assert path == source.with_name("ggml-gpt4all-j-v1.3-groovy.bin.gguf")
    assert is_whole(path)
    assert first.done
    assert cache.converted(source, again) == path
    assert not again.done
    assert sorted(p.name for p in source.parent.iterdir()) == [source.name, path.name]


def test_again_when_the_source_is_another(source: Path) -> None:
    path = cache.converted(source, Progress())
    before = path.read_bytes()
    source.write_bytes(GPTJ(n_embd=32, n_layer=1, seed=7).pack(Q4_0))
    progress = Progress()
    assert cache.converted(source, progress) == path
    assert progress.done
    assert path.read_bytes() != before


def test_again_when_only_the_time_changed(source: Path) -> None:
    cache.converted(source, Progress())
    os.utime(source, (1, 1))
    progress = Progress()
    cache.converted(source, progress)
    assert progress.done


def test_again_with_a_newer_converter(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.converted(source, Progress())
    monkeypatch.setattr(cache, "CONVERTER_VERSION", 2)
    progress = Progress()
    cache.converted(source, progress)
    assert progress.done


def test_again_when_the_conversion_is_damaged(source: Path) -> None:
    path = cache.converted(source, Progress())
    os.truncate(path, 10_000)
    cache.converted(source, Progress())
    assert is_whole(path)


def test_in_the_cache_where_the_folder_cannot_be_written(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_folder(monkeypatch, source.parent)
    path = cache.converted(source, Progress())
    assert path.parent.parent == cache.CACHE
    assert path.name == f"{source.name}.gguf"
    assert is_whole(path)
    progress = Progress()
    assert cache.converted(source, progress) == path
    assert not progress.done


def test_files_of_one_name_do_not_share_a_place(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = source.parent.parent / "others" / source.name
    other.parent.mkdir()
    shutil.copy(source, other)
    refuse_folder(monkeypatch, source.parent, other.parent)
    assert cache.converted(source, Progress()) != cache.converted(other, Progress())


def test_in_the_cache_where_there_is_no_room_beside_the_source(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(source.parent)

    def little(path: Path) -> object:
        return usage._replace(free=1000) if path == source.parent else usage

    monkeypatch.setattr(shutil, "disk_usage", little)
    assert cache.converted(source, Progress()).parent.parent == cache.CACHE
    assert [p.name for p in source.parent.iterdir()] == [source.name]


def test_no_room_anywhere(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(source.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ModelLoadError) as caught:
        cache.converted(source, Progress())
    for word in (str(source), str(source.parent), str(cache.CACHE), "no room", "parlm convert"):
        assert word in str(caught.value)
    assert [p.name for p in source.parent.iterdir()] == [source.name]


def test_a_disk_that_fills_up_leaves_nothing(source: Path) -> None:
    def full(_: int, __: int) -> None:
        raise OSError(28, "No space left on device")

    target = source.with_name("own.gguf")
    with pytest.raises(ModelLoadError, match=r"own\.gguf cannot be written: No space left"):
        cache.convert(source, target, full)
    assert [p.name for p in source.parent.iterdir()] == [source.name]


def test_a_damaged_source_leaves_nothing(source: Path) -> None:
    os.truncate(source, source.stat().st_size - 1)
    with pytest.raises(ModelLoadError, match="truncated"):
        cache.converted(source, Progress())
    assert [p.name for p in source.parent.iterdir()] == [source.name]


KILLED = """
import os, signal, sys
from pathlib import Path
from engines.gptj import cache

def die(done, total):
    if done > total // 2:
        os.kill(os.getpid(), signal.SIGKILL)

cache.converted(Path(sys.argv[1]), die)
"""


def test_killed_on_the_way(source: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(source)]
    assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == -9
    (left,) = (p for p in source.parent.iterdir() if p != source)
    assert left.name.endswith(".partial")
    path = cache.converted(source, Progress())
    assert is_whole(path)
    assert sorted(p.name for p in source.parent.iterdir()) == [source.name, path.name]


def test_two_at_once_convert_once(source: Path) -> None:
    entered, go_on = threading.Event(), threading.Event()
    second, paths = Progress(), []

    def hold(_: int, __: int) -> None:
        entered.set()
        assert go_on.wait(30)

    threads = [
        threading.Thread(target=lambda: paths.append(cache.converted(source, hold))),
        threading.Thread(target=lambda: paths.append(cache.converted(source, second))),
    ]
    threads[0].start()
    assert entered.wait(30)
    threads[1].start()
    time.sleep(0.2)  # long enough for it to get to the lock; it may be late without harm
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert len(paths) == 2
    assert paths[0] == paths[1]
    assert not second.done
    assert is_whole(paths[0])
    assert sorted(p.name for p in source.parent.iterdir()) == [source.name, paths[0].name]
