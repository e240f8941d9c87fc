"""Run Hugging Face models with transformers on CUDA, MPS or CPU, many requests in one batch.

For the families that neither vLLM nor llama.cpp runs. The libraries run in a child process:
nothing here imports them. What a model must have to be run is in `special.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from engines.base import Engine
from engines.options import read_options
from engines.transformers.config import TransformersOptions

# To be set before the child imports the libraries. Threads that spin at a barrier lose most of
# their speed as soon as anything else runs on a core. A model is what lies in its folder: no
# loading may ask a server for more.
CHILD_ENVIRONMENT: Mapping[str, str] = {
    "GOMP_SPINCOUNT": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def create(**options: Any) -> Engine:
    """Build the engine from the fields of `TransformersOptions`; `start` loads the model.

    Raises `ModuleNotFoundError` when transformers or torch is not installed, and `InvalidOption`
    for an option that is unknown, of another type or out of range.
    """
    for library in ("transformers", "torch"):
        if find_spec(library) is None:
            # One name for both: they come with the same extra.
            raise ModuleNotFoundError(f"No module named {library!r}", name="transformers")
    from engines.supervisor import SupervisedEngine

    settings = read_options(TransformersOptions, options)
    environment = dict(CHILD_ENVIRONMENT)
    if settings.cuda_visible_devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = settings.cuda_visible_devices
    return SupervisedEngine(
        name="transformers",
        core="engines.transformers.core:create_core",
        options=asdict(settings),
        environment=environment,
    )
