"""Machines to choose engines for."""

from __future__ import annotations

from server.machine import Gpu, Machine
from server.memory import GB

ENGINES = frozenset({"llama_cpp", "vllm", "transformers", "proxy", "echo"})


def gpu(gigabytes: int) -> Gpu:
    return Gpu("0", "GPU-1", "NVIDIA A100", gigabytes * GB)


def machine(
    gigabytes: int | None = 64,
    gpus: tuple[Gpu, ...] = (),
    installed: frozenset[str] = ENGINES,
    free: int | None = None,
    has_metal: bool = False,
) -> Machine:
    return Machine(
        gpus=gpus,
        has_metal=has_metal,
        memory_bytes=None if gigabytes is None else gigabytes * GB,
        free_bytes=None if free is None else free * GB,
        installed=installed,
    )


LAPTOP = machine(16)
MAC = machine(16, has_metal=True)
SERVER = machine(64)
GPU_SERVER = machine(256, gpus=(gpu(80),))
