"""What this machine has to run models on, found without importing a heavy library."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from engines.llama_cpp.sizing import free_memory
from server.settings import Settings

logger = logging.getLogger(__name__)

MIB = 2**20
_NVIDIA_SMI_SECONDS = 20
# The packages an engine cannot do without.
_PACKAGES = {
    "llama_cpp": ("llama_cpp", "numpy"),
    "vllm": ("vllm",),
    "transformers": ("transformers", "torch", "safetensors"),
    "proxy": (),
    "echo": (),
}
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device: its number or UUID, its name, and its memory in bytes."""

    index: str
    uuid: str
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What models can run on here. Memory is in bytes, None where the system does not tell.

    `memory_bytes` is what this process may have at most, its container's limit included;
    `free_bytes` what it could have now. `installed` are the engines whose packages are there.
    """

    gpus: tuple[Gpu, ...] = ()
    has_metal: bool = False
    memory_bytes: int | None = None
    free_bytes: int | None = None
    installed: frozenset[str] = frozenset()

    @property
    def platform(self) -> Literal["cuda", "mps", "cpu"]:
        """The kind of processor that models run on."""
        if self.gpus:
            return "cuda"
        return "mps" if self.has_metal else "cpu"

    @property
    def gpu_bytes(self) -> int:
        """Memory of all CUDA devices together."""
        return sum(gpu.memory_bytes for gpu in self.gpus)


def look_at_machine(settings: Settings) -> Machine:
    """Find what there is. CUDA devices are those of CUDA_VISIBLE_DEVICES and NUM_GPUS."""
    gpus = visible_gpus(_nvidia_smi(), settings.cuda_visible_devices)
    return Machine(
        gpus=tuple(gpus[: settings.num_gpus]),
        has_metal=platform.system() == "Darwin" and platform.machine() == "arm64",
        memory_bytes=_total_memory(),
        free_bytes=free_memory(),
        installed=installed_engines(),
    )


def installed_engines() -> frozenset[str]:
    """Return the engines whose packages are installed; nothing is imported."""
    return frozenset(
        engine
        for engine, packages in _PACKAGES.items()
        if all(find_spec(package) is not None for package in packages)
    )


def _nvidia_smi() -> str:
    """Return what NVIDIA's tool says of its devices; nothing where it is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = "--query-gpu=index,uuid,name,memory.total"
    try:
        result = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SMI_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("nvidia-smi is there but failed (%s): no CUDA device is used", error)
        return ""
    return result.stdout


def visible_gpus(listing: str, visible: str | None) -> Sequence[Gpu]:
    """Read the lines `index, uuid, name, MiB` and keep the devices that CUDA would show.

    `visible` has the form of CUDA_VISIBLE_DEVICES: numbers or UUIDs (their beginnings), in order,
    up to the first that does not exist; empty hides all, None shows all.
    """
    gpus = [gpu for line in listing.splitlines() if (gpu := _read_gpu(line)) is not None]
    if visible is None:
        return gpus
    shown: list[Gpu] = []
    for wanted in filter(None, map(str.strip, visible.split(","))):
        found = [g for g in gpus if wanted == g.index or g.uuid.startswith(wanted)]
        if not found:
            break
        shown.append(found[0])
    return shown


def _read_gpu(line: str) -> Gpu | None:
    parts = [part.strip() for part in line.split(",")]
    # Devices with unified memory, or in a bad state, say "[N/A]".
    if len(parts) != 4 or not parts[3].isdigit():
        return None
    return Gpu(parts[0], parts[1], parts[2], int(parts[3]) * MIB)


def _total_memory() -> int | None:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None
    try:
        return min(total, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return total
