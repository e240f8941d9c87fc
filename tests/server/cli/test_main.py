"""The entry point: commands, version, wrong settings, `parlm serve`."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from server.cli import EX_CONFIG, app, main
from server.settings import Settings

PARLM = Path(sys.executable).parent / "parlm"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that `parlm serve` starts a server with; it exits with 3."""
    settings: list[Settings] = []

    def serve(given: Settings) -> int:
        settings.append(given)
        return 3

    monkeypatch.setitem(sys.modules, "server.lifecycle", SimpleNamespace(serve=serve))
    return settings


def test_serve_passes_the_settings_and_the_exit_code_on(served: list[Settings]) -> None:
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 3
    assert served[0].llm_model == ("parlm-tiny",)


def test_options_of_serve_win_over_the_settings(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_MODEL", "other")
    command = ["serve", "--model", "vicuna-13b,tiny", "--model-server", "localhost:9"]
    CliRunner().invoke(app, command)
    assert served[0].llm_model == ("vicuna-13b", "tiny")
    assert (served[0].host, served[0].port) == ("localhost", 9)


def test_the_env_file_is_read(served: list[Settings], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LLM_MODEL=from-dot-env\n")
    (tmp_path / "other.env").write_text("LLM_MODEL=from-other\n")
    CliRunner().invoke(app, ["serve"])
    CliRunner().invoke(app, ["serve", "--env-file", "other.env"])
    assert [settings.llm_model[0] for settings in served] == ["from-dot-env", "from-other"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["serve", "--model", "not a name"], "LLM_MODEL"),
        (["serve", "--env-file", "none"], "none"),
        (["chat", "hi", "--env-file", "none"], "none"),
        (["models", "--env-file", "none"], "none"),
    ],
)
def test_wrong_settings_exit_with_ex_config(
    arguments: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["parlm", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == EX_CONFIG == 78
    message = capsys.readouterr().err
    assert named in message
    assert "\n\n" not in message


def test_the_installed_command() -> None:
    run = subprocess.run([PARLM, "--version"], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (0, f"parlm {version('parlm')}\n")


def test_the_client_commands_do_not_load_the_server() -> None:
    code = "import sys, server.cli; print([m for m in ('fastapi', 'uvicorn') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=PARLM.parents[2])
    assert run.stdout == b"[]\n"
