"""`parlm convert checkpoint`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from server.cli import app, convert

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

import torch


def checkpoint(folder: Path) -> Result:
    return CliRunner().invoke(app, ["convert", "checkpoint", str(folder)])


def test_prints_the_folder(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "pytorch_model.bin")
    result = checkpoint(tmp_path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{tmp_path}\n", "")
    assert (tmp_path / "model.safetensors").is_file()


def test_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    result = checkpoint(tmp_path / "nothing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is nothing to convert" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_shows_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(convert, "Console", lambda **_: console)
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "pytorch_model.bin")
    assert checkpoint(tmp_path).exit_code == 0
    assert f"Converting {tmp_path.name}" in screen.getvalue()
