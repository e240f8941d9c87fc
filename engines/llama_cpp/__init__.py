"""Run GGUF models on CPU, Metal or CUDA with llama.cpp, many requests at once.

The library runs in a child process: nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from engines.base import Engine
from engines.errors import MissingDependency
from engines.llama_cpp.config import LlamaCppOptions
from engines.options import read_options

# To be set before the child imports the library. OpenMP threads that wait for another at a barrier
# spin for milliseconds by default, and lose most of their speed as soon as anything else runs on a
# core; with no spinning at all they lose it on an idle machine, to sleeping and waking. So many
# turns are some microseconds, about what a barrier takes (figures in ARCHITECTURE.md).
CHILD_ENVIRONMENT: Mapping[str, str] = {"GOMP_SPINCOUNT": "300"}


def create(**options: Any) -> Engine:
    """Build the engine from the fields of `LlamaCppOptions`; `start` loads the model.

    Raises `ModuleNotFoundError` when llama-cpp-python is not installed, `MissingDependency`
    when llguidance is not, and `InvalidOption` for an option that is unknown, of another type or
    out of range.
    """
    if find_spec("llama_cpp") is None:
        raise ModuleNotFoundError("No module named 'llama_cpp'", name="llama_cpp")
    if find_spec("llguidance") is None:
        raise MissingDependency("llama_cpp", "llguidance", "run `make install`")
    from engines.supervisor import SupervisedEngine

    return SupervisedEngine(
        name="llama_cpp",
        core="engines.llama_cpp.core:create_core",
        options=asdict(read_options(LlamaCppOptions, options)),
        environment=dict(CHILD_ENVIRONMENT),
    )
