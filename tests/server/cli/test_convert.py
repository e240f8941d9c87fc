"""`parlm convert gptj`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from engines.gguf import read_gguf
from server.cli import app, convert
from tests.engines.gptj_files import GPTJ, Q4_0

pytest.importorskip("numpy", reason="numpy, which comes with the engines, is not installed")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "ggml-gpt4all-j-v1.3-groovy.bin"
    path.write_bytes(GPTJ(n_embd=32, n_layer=1).pack(Q4_0))
    return path


def gptj(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["convert", "gptj", *map(str, arguments)])


def test_to_where_the_server_finds_it(source: Path) -> None:
    for _ in range(2):
        result = gptj(source)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == f"{source}.gguf\n"
    assert read_gguf(Path(f"{source}.gguf")).metadata["general.architecture"] == "phi2"


def test_to_a_file_of_ones_own(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "groovy.gguf"
    assert gptj(source, target).stdout == f"{target}\n"
    assert read_gguf(target).file_size == target.stat().st_size
    before = target.read_bytes()
    result = gptj(source, target)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    assert target.read_bytes() == before


@pytest.mark.parametrize("name", ["none.bin", "other.bin", ""])
def test_a_file_that_is_no_gptj(tmp_path: Path, name: str) -> None:
    (tmp_path / "other.bin").write_bytes(b"PK\3\4" + bytes(100))
    result = gptj(tmp_path / name)
    assert result.exit_code == 1
    assert str(tmp_path / name) in result.stderr
    assert "Traceback" not in result.stderr


def test_without_numpy(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("engines.gptj.cache", "engines.gptj.conversion", "engines.gptj.rows"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    result = gptj(source)
    assert result.exit_code == 1
    assert "numpy is not installed" in result.stderr


def test_a_target_in_a_folder_that_is_not_there(source: Path, tmp_path: Path) -> None:
    result = gptj(source, tmp_path / "none" / "x.gguf")
    assert result.exit_code == 1
    assert "cannot be written: No such file" in result.stderr


def test_the_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr(convert, "Console", lambda **_: console)
    with convert.progress_bar("Converting x.bin") as on_progress:
        on_progress(5, 10)
        on_progress(10, 10)
    assert "Converting x.bin" in shown.getvalue()
    assert "10/10 bytes" in shown.getvalue()
