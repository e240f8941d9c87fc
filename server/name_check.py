"""Whether the weights are those of the model whose name they are served under."""

from __future__ import annotations

import logging

from engines.types import ModelDescription
from server.catalog import BILLION, CatalogEntry
from server.engine_choice import weights_of
from server.model_specs import ModelSpec
from server.settings import SettingsError

logger = logging.getLogger(__name__)

# Parameters are counted with or without the output's embedding, and catalogued in round numbers.
_TOLERANCE = 0.2
# Configs of one model that differ by its age, or by what was left out of it.
_SAME = {"RefinedWeb": "falcon", "RefinedWebModel": "falcon", "gemma3_text": "gemma3"}


def check_weights(entry: CatalogEntry, spec: ModelSpec, description: ModelDescription) -> None:
    """Refuse weights of another architecture; warn of another size.

    Raises `SettingsError`. The architecture decides the prompt and the engine, so a wrong one
    answers nonsense; another size of the same family answers well under a wrong name.
    """
    found, expected = weights_of(description).architecture, _expected(entry, description)
    if found and expected and _same(found) != _same(expected):
        raise SettingsError(
            f"LLM_MODEL={spec.name!r} is a model of the architecture {expected!r}, and "
            f"{description.path} holds one of {found!r}: set LLM_MODEL_PATH to weights of "
            f"{entry.name} (`parlm pull {entry.name}`), or LLM_MODEL to another name"
        )
    has, should_have = description.parameters, entry.parameters
    if has and should_have and abs(has - should_have) > _TOLERANCE * should_have:
        logger.warning(
            "%s should have %.1f billion parameters, and %s has %.1f: are these other weights?",
            *(spec.name, entry.billions, description.path, has / BILLION),
        )


def _expected(entry: CatalogEntry, description: ModelDescription) -> str:
    """The architecture an entry promises in a format; "" where it promises none."""
    if entry.url is not None:
        return ""  # a file of a format of its own, which is converted to whatever fits
    if description.format == "gguf" and entry.gguf_architecture is not None:
        return entry.gguf_architecture
    return entry.architecture


def _same(architecture: str) -> str:
    return _SAME.get(architecture, architecture)
