"""A process is counted with its children and ends with them."""

import sys
import time
from pathlib import Path

import psutil

from benchmarks.engines.processes import Server, environment

BURN = "import time; n = time.process_time\nwhile n() < 0.3: pass\n"
# Two children of 0.3 s each; the kernel counts in ticks of 0.01 s and drops what is begun.
EXPECTED = 0.55
PARENT = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-c", {BURN!r}])
subprocess.Popen([sys.executable, "-c", {BURN + "time.sleep(60)"!r}])
print("ready", flush=True)
print(sys.stdin.readline(), flush=True)
time.sleep(60)
"""


def test_children_that_ended_and_children_that_run_are_counted(tmp_path: Path) -> None:
    server = Server([sys.executable, "-c", PARENT], environment({}), tmp_path, piped=True)
    try:
        assert server.read_line() == b"ready\n"
        deadline = time.monotonic() + 30
        while server.cpu_seconds() < EXPECTED and time.monotonic() < deadline:
            time.sleep(0.02)
        assert EXPECTED <= server.cpu_seconds() < 3
        server.write_line(b"hello")
        assert server.read_line() == b"hello\n"
        children = psutil.Process(server.pid).children()
    finally:
        server.stop()
    assert children
    while any(map(is_alive, children)):
        assert time.monotonic() < deadline + 10, "a child outlived its server"
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    """Tell whether it runs: one that nobody waited for is a zombie."""
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def test_settings_are_not_inherited(tmp_path: Path) -> None:
    program = "import os; print(sorted(n for n in os.environ if n.startswith('LLM')), flush=True)"
    variables = environment({"LLM_MODEL": "bench"}, site=tmp_path)
    assert variables["PYTHONPATH"].endswith(str(tmp_path))
    server = Server([sys.executable, "-c", program], variables, tmp_path, piped=True)
    assert server.read_line() == b"['LLM_MODEL']\n"
    assert server.read_line() == b""
    server.stop()
