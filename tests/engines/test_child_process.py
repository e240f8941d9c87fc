from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import engines
from engines import wire
from engines.child_process import ChildProcess, child_environment
from tests.engines.driving import eventually

pytestmark = pytest.mark.anyio

# A core that writes to its log as native libraries do, and then fails.
NOISY = """
import os, sys
def create():
    os.write(2, b"one\\rtwo\\x1b[31m\\xff \\xe2\\x80\\xa8 end\\n" + b"x" * 200_000 + b"\\nlast\\n")
    print("to standard output", flush=True)
    sys.exit(7)
"""


@pytest.fixture
def noisy(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "noisy_core.py").write_text(NOISY)
    return {"PYTHONPATH": str(tmp_path)}


async def test_the_log_is_kept_line_by_line_and_cannot_forge_one(
    noisy: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="engines.child_process")
    launch = wire.Launch("noisy_core:create", {})
    child = await ChildProcess.spawn("noisy", launch, noisy, lambda message: None)
    await child.lost
    await child.reap()
    assert child.explain_end() == "it exited with status 7"
    assert caplog.messages == [
        "noisy: one",
        r"noisy: two\x1b[31m� \u2028 end",
        "noisy: " + "x" * 500,
        "noisy: last",
        "noisy: to standard output",
    ]
    assert child.last_words().splitlines() == [line[7:] for line in caplog.messages]


async def test_a_child_that_breaks_the_protocol_is_killed(tmp_path: Path) -> None:
    (tmp_path / "rude_core.py").write_text(
        "import os, sys, time\n"
        "def create():\n"
        "    os.write(int(sys.argv[1]), b'\\xff' * 100)\n"
        "    time.sleep(60)\n"
    )
    child = await ChildProcess.spawn(
        "rude", wire.Launch("rude_core:create", {}), {"PYTHONPATH": str(tmp_path)}, print
    )
    await child.lost
    await child.reap()
    assert child.explain_end() == "it broke the protocol"


async def test_sending_to_a_child_that_is_gone_does_nothing() -> None:
    launch = wire.Launch("engines.nowhere:create", {})
    child = await ChildProcess.spawn("gone", launch, {}, lambda message: None)
    await eventually(child.lost.done)
    await child.reap()
    child.send(wire.Cancel("x"))
    child.kill()
    await child.reap()


async def test_what_cannot_be_sent_at_launch_starts_nothing_that_stays() -> None:
    launch = wire.Launch("a:b", {"x": object()})
    tasks = len(asyncio.all_tasks())
    with pytest.raises(TypeError):
        await ChildProcess.spawn("x", launch, {}, lambda message: None)
    assert len(asyncio.all_tasks()) == tasks


def test_the_environment_holds_what_a_child_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    environment = child_environment({"GOMP_SPINCOUNT": "0"})
    root = str(Path(engines.__file__).parents[1])
    assert environment["PYTHONPATH"].split(":") == [root, "/theirs"]
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert environment["GOMP_SPINCOUNT"] == "0"
    assert "OPENAI_API_KEY" not in environment
