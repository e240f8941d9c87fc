"""What reaches the terminal."""

from __future__ import annotations

import sys

import pytest

from server.cli import terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n\u2028 é 🙂", "plain\ttext\n\u2028 é 🙂"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("over\rwritten\x08\x7f", "over␍written␈␡"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_control_characters_are_made_visible(text: str, shown: str) -> None:
    assert terminal.harmless(text) == shown


def test_a_terminal_gets_harmless_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    terminal.write("a\x1b[31m")
    assert capsys.readouterr().out == "a␛[31m"


def test_a_pipe_gets_the_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.write("a\x1b[31m\n")
    assert capsys.readouterr().out == "a\x1b[31m\n"


def test_an_error_is_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.error("two\n  lines \x1b[2J")
    assert capsys.readouterr().err.strip() == "two lines ␛[2J"
