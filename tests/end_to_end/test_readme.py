"""The README's first requests, run as printed but for the port."""

import re
import subprocess
import sys

import pytest

from tests.serving import ROOT, Program

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(parlm: Program, command: list[str], printed: str) -> str:
    """Run a printed block against the server of the tests."""
    assert "http://127.0.0.1:8000/v1" in printed
    block = printed.replace("http://127.0.0.1:8000/v1", parlm.base_url)
    done = subprocess.run(
        [*command, block], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(parlm: Program) -> None:
    (printed,) = [block for block in blocks("sh") if "curl" in block]
    assert "42" in run(parlm, ["sh", "-c"], printed)


@pytest.mark.parametrize(
    ("name", "answer"), [("OpenAI", "42"), ("ChatOpenAI", "42"), ("OpenAIEmbeddings", "256")]
)
def test_python(parlm: Program, name: str, answer: str) -> None:
    (printed,) = [block for block in blocks("python") if f" import {name}\n" in block]
    assert answer in run(parlm, [sys.executable, "-c"], printed)


def test_the_two_commands_are_the_makefiles() -> None:
    (printed,) = [block for block in blocks("sh") if "make serve" in block]
    targets = re.findall(r"^make (\w+)", printed, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert targets == ["serve", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
