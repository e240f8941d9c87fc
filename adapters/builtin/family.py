"""What the adapters of the families share: how a family is known by names and by files."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import ClassVar

from adapters.base import Adapter, BaseChatAdapter, BaseLLMAdapter
from adapters.builtin.default import template_adapter
from adapters.builtin.names import telling_name
from adapters.filters import FilteredText, Stripped
from adapters.parsing import OutputParser
from adapters.registry import BUILTIN_PRIORITY
from engines.types import ModelDescription, Tool

log = logging.getLogger(__name__)


class Family(Adapter):
    """An adapter known by names: `names` is searched in what `telling_name` finds in a path.

    None matches nothing: a form of a family that only `LLM_ADAPTER` or another adapter picks.
    """

    priority = BUILTIN_PRIORITY
    names: ClassVar[re.Pattern[str] | None] = None

    def match(self, model_path: str) -> bool:
        """Match the name of a model of the family, wherever it stands in a path."""
        return bool(self.names and self.names.search(telling_name(model_path)))


class FamilyLLMAdapter(Family, BaseLLMAdapter):
    """Loads a family."""


class FamilyChatAdapter(Family, BaseChatAdapter):
    """Speaks with a family.

    `architectures` are what GGUF files and `config.json` call the family's own; empty for one
    that has no files.
    """

    architectures: ClassVar[frozenset[str]] = frozenset()

    def for_model(self, model: ModelDescription) -> BaseChatAdapter:
        """Return the form for this model, or its own template if it only has the family's name.

        An adapter that `LLM_ADAPTER` put upon a model of another name is kept. Raises
        `TemplateError`.
        """
        is_foreign = model.architecture and model.architecture not in self.architectures
        if is_foreign and any(map(self.match, (model.name, model.path))):
            log.warning(
                "%s has a name of the family %r, but its architecture is %r: it is spoken to as "
                "its own files say",
                model.name,
                self.name,
                model.architecture,
            )
            return template_adapter(model)
        return self.form_for(model)

    def form_for(self, model: ModelDescription) -> BaseChatAdapter:  # noqa: ARG002
        """Return the adapter of the form that this member of the family knows."""
        return self

    def output_parser(self, tools: Sequence[Tool] = ()) -> OutputParser:  # noqa: ARG002
        """Drop the blank behind the label in front, and what precedes a stop string."""
        return FilteredText(Stripped())


def telling_names(model: ModelDescription) -> tuple[str, ...]:
    """Return the plain names of a model, that of its files first: a served name may be anything."""
    names = (telling_name(model.path), telling_name(model.name))
    return tuple(name for name in names if name)


def has_special(model: ModelDescription, token: str) -> bool:
    """Tell whether a model's files name a special token; they need not name all there are."""
    return token in model.special_tokens
