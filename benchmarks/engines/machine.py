"""What a benchmark ran on."""

from __future__ import annotations

import platform
import time
from importlib import metadata
from pathlib import Path

import psutil

_VECTOR_UNITS = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "sve")


def about_machine(*packages: str) -> dict[str, str]:
    """Return lines about the time, the machine, Python and packages."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{psutil.cpu_count()} CPUs, {cpu_name()}, {platform.system()}",
        "python": platform.python_version(),
    } | {package: version(package) for package in packages}


def cpu_name() -> str:
    """Return what the processor is called, on Linux with its vector units."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = {key.strip(): value.strip() for key, _, value in (s.partition(":") for s in lines)}
    flags = (found.get("flags") or found.get("Features") or "").split()
    units = " ".join(unit for unit in _VECTOR_UNITS if unit in flags)
    return f"{found.get('model name', platform.machine())} ({units})"


def version(package: str) -> str:
    """Return the installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
