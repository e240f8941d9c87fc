"""scripts/install_llama_cpp.sh up to the point where it would compile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "install_llama_cpp.sh"
# All that the script calls before the compiler; with CC and CXX unset there is none to be found.
TOOLS = ("awk", "cat", "dirname", "env", "head", "mkdir", "mktemp", "rm", "sh")

Install = Callable[..., subprocess.CompletedProcess[str]]


def pinned() -> str:
    versions = re.findall(r"^LLAMA_CPP_PYTHON_VERSION=(\S+)$", SCRIPT.read_text(), re.MULTILINE)
    assert len(versions) == 1
    return str(versions[0])


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Run the script for this interpreter, which sees a stand-in `llama_cpp` of some version."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found, name
        (tools / name).symlink_to(found)

    def run(version: str | None, **env: str) -> subprocess.CompletedProcess[str]:
        source = "raise ImportError" if version is None else f"__version__ = {version!r}"
        stand_in = tmp_path / "modules"
        stand_in.mkdir(exist_ok=True)
        (stand_in / "llama_cpp.py").write_text(source)
        return subprocess.run(
            [str(SCRIPT), sys.executable],
            env={
                "PATH": str(tools),
                "PYTHONPATH": str(stand_in),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PARLM_CACHE": str(tmp_path / "cache"),
                **env,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_both_shells_can_read_it(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    subprocess.run([shell, "-n", str(SCRIPT)], check=True)


def test_it_can_be_run_and_finds_its_cmake_file() -> None:
    assert os.access(SCRIPT, os.X_OK)
    assert (SCRIPT.parent / "llama_cpp_build.cmake").is_file()


def test_it_installs_the_version_that_the_extra_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"llama-cpp-python=={pinned()}" in project["optional-dependencies"]["llama_cpp"]


def test_help_tells_the_variables_it_reads() -> None:
    shown = subprocess.run([str(SCRIPT), "--help"], capture_output=True, text=True, check=True)
    assert all(name in shown.stdout for name in ("PYTHON", "CMAKE_ARGS", "PARLM_CACHE"))
    assert "set -eu" not in shown.stdout


@pytest.mark.parametrize("arguments", [[], ["/no/such/python"], [sys.executable, "more"]])
def test_it_refuses_what_is_not_one_interpreter(arguments: list[str]) -> None:
    done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("llama-cpp-python: ")


def test_what_is_already_installed_is_left_alone(install: Install, tmp_path: Path) -> None:
    done = install(pinned())
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"llama-cpp-python: {pinned()} is already installed, nothing to do\n"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("version", [None, "0.0.1"])
def test_without_a_compiler_it_names_the_packages(install: Install, version: str | None) -> None:
    done = install(version)
    assert done.returncode == 1
    assert "no C and C++ compiler found" in done.stderr
    assert "build-essential" in done.stderr
    assert "xcode-select --install" in done.stderr


def test_a_compiler_that_does_not_work_is_told_apart(install: Install, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'no developer tools found' >&2\nexit 1\n")
    broken.chmod(0o755)
    done = install(None, CC=str(broken), CXX=str(broken))
    assert done.returncode == 1
    assert "no developer tools found" in done.stderr
    assert "build-essential" in done.stderr
    assert not list((tmp_path / "cache" / "wheels").glob(".build.*"))


def test_other_cmake_arguments_ask_for_another_build(install: Install) -> None:
    done = install(pinned(), CMAKE_ARGS="-DGGML_CUDA=on")
    assert "not built with CMAKE_ARGS=-DGGML_CUDA=on" in done.stdout
    assert "no C and C++ compiler found" in done.stderr
