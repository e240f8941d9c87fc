"""What the machine has: read from what the system's tools print."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.machine import MIB, Gpu, look_at_machine, visible_gpus
from server.settings import Settings

LISTING = """\
0, GPU-aaaa-1, NVIDIA H100 80GB HBM3, 81559
1, GPU-bbbb-2, NVIDIA H100 80GB HBM3, 81559
2, GPU-cccc-3, NVIDIA T4, 15360
"""


def indexes(visible: str | None) -> list[str]:
    return [gpu.index for gpu in visible_gpus(LISTING, visible)]


def test_reads_what_nvidia_smi_prints() -> None:
    first = visible_gpus(LISTING, None)[0]
    assert first == Gpu("0", "GPU-aaaa-1", "NVIDIA H100 80GB HBM3", 81559 * MIB)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0", "1", "2"]),
        ("2,0", ["2", "0"]),
        ("GPU-bbbb", ["1"]),
        ("0,7,1", ["0"]),
        ("-1", []),
        ("", []),
    ],
)
def test_shows_the_devices_cuda_would(visible: str | None, expected: list[str]) -> None:
    assert indexes(visible) == expected


@pytest.mark.parametrize("listing", ["", "No devices were found", "0, GPU-1, Spark, [N/A]"])
def test_no_device_is_no_device(listing: str) -> None:
    assert visible_gpus(listing, None) == []


def program(folder: Path, script: str) -> None:
    file = folder / "nvidia-smi"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_looks_at_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path, f"cat <<END\n{LISTING}END")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    machine = look_at_machine(Settings(_env_file=None, cuda_visible_devices="2,1", num_gpus=1))
    assert [gpu.name for gpu in machine.gpus] == ["NVIDIA T4"]
    assert machine.platform == "cuda"
    assert machine.gpu_bytes == 15360 * MIB
    assert machine.memory_bytes is not None
    assert machine.memory_bytes > 100 * MIB
    assert {"echo", "proxy"} <= machine.installed


def test_a_tool_that_fails_is_mentioned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program(tmp_path, "exit 9")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert look_at_machine(Settings(_env_file=None)).gpus == ()
    assert "nvidia-smi" in caplog.text
