"""`parlm chat` and `parlm models` against the whole program."""

import json
import subprocess
import sys

from tests.serving import Program, clean_environment


def run(parlm: Program, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of the CLI with MODEL_SERVER naming the running program."""
    address = parlm.root.removeprefix("http://")
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        env=clean_environment(MODEL_SERVER=address),
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_chat_answers_a_prompt(parlm: Program) -> None:
    assert "42" in run(parlm, "chat", "What is 12 + 30?").stdout


def test_chat_reads_a_pipe(parlm: Program) -> None:
    assert "parlm-tiny" in run(parlm, "chat", typed="Hello!\n").stdout


def test_chat_prints_json(parlm: Program) -> None:
    answer = json.loads(run(parlm, "chat", "--json", "What is 12 + 30?").stdout)
    assert "42" in answer["content"]
    assert answer["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] > 0


def test_models_are_listed(parlm: Program) -> None:
    out = run(parlm, "models").stdout
    assert "parlm-tiny" in out
    assert "llama_cpp" in out
    listed = json.loads(run(parlm, "models", "--json").stdout)
    assert "parlm-tiny" in json.dumps(listed)
