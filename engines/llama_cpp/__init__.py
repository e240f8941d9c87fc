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

# To be set before the child imports the library: OpenMP threads that spin at a barrier for
# another thread to finish lose most of their speed as soon as anything else runs on a core.
CHILD_ENVIRONMENT: Mapping[str, str] = {"GOMP_SPINCOUNT": "0"}


def create(**options: Any) -> Engine:
    """Build the engine from the fields of `LlamaCppOptions`; `start` loads the model.

    Raises `ModuleNotFoundError` when llama-cpp-python is not installed, `MissingDependency`
    when llguidance is not, `TypeError` for an unknown option and `ValueError` for a value out of
    range.
    """
    if find_spec("llama_cpp") is None:
        raise ModuleNotFoundError("No module named 'llama_cpp'", name="llama_cpp")
    if find_spec("llguidance") is None:
        raise MissingDependency("llama_cpp", "llguidance", "run `make install`")
    from engines.supervisor import SupervisedEngine

    return SupervisedEngine(
        name="llama_cpp",
        core="engines.llama_cpp.core:create_core",
        options=asdict(LlamaCppOptions(**options)),
        environment=dict(CHILD_ENVIRONMENT),
    )
