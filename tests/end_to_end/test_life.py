"""The program's life: wrong settings, signals, a dying engine, clients that leave."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.end_to_end.conftest import WEIGHTS
from tests.serving import Program, clean_environment, free_port, post, program, wait_until
from tests.sse import chunks, frames


def start_and_fail(cwd: Path, **settings: str) -> tuple[int, str]:
    """Run `parlm serve` that must not start; return exit code and what it said."""
    settings = {"MODEL_SERVER": f"127.0.0.1:{free_port()}"} | settings
    done = subprocess.run(
        [sys.executable, "-m", "server", "serve"],
        cwd=cwd,
        env=clean_environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"LLM_MODEL": "vicuna-13b"}, ["LLM_MODEL", "LLM_MODEL_PATH"]),
        ({"LLM_MODEL_PATH": "/nowhere/x.gguf"}, ["LLM_MODEL_PATH", "/nowhere/x.gguf"]),
        ({"MODEL_SERVER": "0.0.0.0:8000"}, ["MODEL_SERVER", "API_KEYS"]),
        ({"MODEL_SERVER": "here:there"}, ["MODEL_SERVER"]),
        ({"LLM_ENGINE": "vllm"}, ["LLM_ENGINE"]),
        ({"LLM_MODEL": "proxyllm"}, ["LLM_MODEL", "proxy"]),
        ({"LLM_ADAPTER": "nobody"}, ["LLM_ADAPTER"]),
        ({"MAX_QUEUE": "-1"}, ["MAX_QUEUE"]),
        ({"ADAPTER_FILES": "/nowhere.py"}, ["ADAPTER_FILES", "/nowhere.py"]),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(
    tmp_path: Path, settings: dict[str, str], words: list[str]
) -> None:
    code, said = start_and_fail(tmp_path, **settings)
    assert code == 78
    for word in words:
        assert word in said


def test_a_misspelt_setting_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LLM_MODELL=echo\n")
    code, said = start_and_fail(tmp_path)
    assert code == 78
    assert "did you mean LLM_MODEL?" in said


@pytest.mark.parametrize("content", [b"", b"not a model", b"GGUF\x03\x00\x00\x00", b"truncated"])
def test_a_broken_model_file_stops_the_start(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(WEIGHTS.read_bytes()[:1_000_000] if content == b"truncated" else content)
    code, said = start_and_fail(tmp_path, LLM_MODEL_PATH=str(file))
    assert code == 78
    assert "broken.gguf" in said


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = start_and_fail(tmp_path, LLM_MODEL="echo", MODEL_SERVER=address)
    assert code == 78
    assert address in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_and_its_engine(tmp_path: Path, number: int) -> None:
    pytest.importorskip("llama_cpp", reason="the llama_cpp engine is not installed")
    with program(tmp_path) as running:
        (child,) = running.engine_pids()
        assert running.base_url.endswith("/v1")
        assert running.stop(number) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_running_answer_survives_the_first_signal(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="the llama_cpp engine is not installed")
    with program(tmp_path) as running:
        with httpx2.stream(
            "POST", f"{running.base_url}/chat/completions", json=long_request(stream=True),
            timeout=60, trust_env=False,
        ) as reply:  # fmt: skip
            lines = reply.iter_raw()
            body = next(lines)
            running.process.send_signal(signal.SIGTERM)
            body += b"".join(lines)
        assert chunks(body)[-1]["choices"][0]["finish_reason"] == "length"
        assert running.process.wait(20) == 0


def long_request(**fields: Any) -> dict[str, Any]:
    """A request that runs for some seconds: all eight slots, to the end of the context."""
    return {
        "model": "parlm-tiny", "messages": [{"role": "user", "content": "Hello!"}],
        "ignore_eos": True, "max_tokens": 900, "n": 1, "temperature": 1, **fields,
    }  # fmt: skip


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads CPU time from /proc")
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_engine_within_a_second(
    parlm: Program, stream: bool
) -> None:
    (child,) = parlm.engine_pids()
    host, port = parlm.root.removeprefix("http://").split(":")
    payload = json.dumps(long_request(stream=stream, n=8)).encode()
    before = cpu_seconds(child)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(payload) + payload
        )
        wait_until(lambda: cpu_seconds(child) > before + 0.1, 10, "the generation")
    time.sleep(1)
    stopped = cpu_seconds(child)
    time.sleep(0.5)
    assert cpu_seconds(child) - stopped <= 0.05


def test_a_killed_engine_ends_streams_and_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="the llama_cpp engine is not installed")
    with program(tmp_path) as running:
        for _ in range(2):
            _kill_under_load(running)


def _kill_under_load(running: Program) -> None:
    url = f"{running.base_url}/chat/completions"
    bodies: list[bytes] = []

    def read() -> None:
        fields = long_request(stream=True, seed=time.monotonic_ns() % 2**31)
        with httpx2.stream("POST", url, json=fields, timeout=60, trust_env=False) as reply:
            bodies.append(b"".join(reply.iter_raw()))

    readers = [threading.Thread(target=read) for _ in range(3)]
    (child,) = running.engine_pids()
    before = cpu_seconds(child)
    for reader in readers:
        reader.start()
    wait_until(lambda: cpu_seconds(child) > before + 0.1, 10, "the generation")
    time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    killed = time.monotonic()
    for reader in readers:
        reader.join(10)
    assert time.monotonic() - killed < 1.5
    for body in bodies:
        data = frames(body)
        assert json.loads(data[-1])["error"]["code"] == "engine_crashed"
        assert "[DONE]" not in data
    _comes_back(running, url)


def _comes_back(running: Program, url: str) -> None:
    statuses = set()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        reply = post(url, {"model": "parlm-tiny", "messages": [{"role": "user", "content": "Hi"}]})
        statuses.add(reply.status_code)
        if reply.status_code == 200:
            break
        assert reply.headers["retry-after"]
        assert reply.json()["error"]["type"] == "server_error"
        time.sleep(0.02)
    assert statuses <= {200, 503}
    assert httpx2.get(f"{running.root}/health/ready", trust_env=False).status_code == 200


def test_nothing_listens_but_the_server(parlm: Program) -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("reads sockets from /proc")
    (child,) = parlm.engine_pids()
    sockets = {str(f.readlink()) for f in Path(f"/proc/{child}/fd").iterdir()}
    inodes = {s[8:-1] for s in sockets if s.startswith("socket:")}
    tcp = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert not [row for row in tcp if row[9] in inodes]
