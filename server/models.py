"""The models being served: a name, the adapter that speaks to it, the engine that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapters.base import BaseChatAdapter
from engines.base import Engine, HasContextLength, MayOnlyEmbed
from engines.errors import UnsupportedOperation
from engines.types import ModelDescription
from server.errors import ApiError


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model. `reason` says why this engine; `created` is in Unix seconds.

    `fingerprint` changes with whatever could change an answer: weights, engine, adapter, options.
    """

    name: str
    engine: Engine
    adapter: BaseChatAdapter
    description: ModelDescription
    reason: str
    fingerprint: str
    created: int
    aliases: tuple[str, ...] = ()

    def check_generates(self) -> None:
        """Raise `UnsupportedOperation` if the model makes embeddings only."""
        if isinstance(self.engine, MayOnlyEmbed) and not self.engine.generates:
            raise UnsupportedOperation(
                "this model makes embeddings (POST /v1/embeddings) and generates no text"
            )

    @property
    def context_length(self) -> int:
        """Tokens one request may hold; what the files say until the engine has loaded them."""
        if isinstance(self.engine, HasContextLength) and self.engine.health().is_ready:
            return self.engine.context_length
        return self.description.context_length


class ModelTable:
    """Finds a model by its name or an alias; the first one is the default."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self.models: Mapping[str, ServedModel] = {model.name: model for model in models}
        self._by_alias = {alias: m for m in self.models.values() for alias in m.aliases}

    def find(self, name: str) -> ServedModel:
        """Return the model called `name`. Raises `ApiError` 404 `model_not_found`."""
        model = self.models.get(name) or self._by_alias.get(name)
        if model is None:
            raise ApiError(
                404,
                f"This model does not exist here. Available: {', '.join(self.models)}.",
                param="model",
                code="model_not_found",
            )
        return model

    def is_ready(self) -> bool:
        """Tell whether every model would take a request now."""
        return all(model.engine.health().is_ready for model in self.models.values())
