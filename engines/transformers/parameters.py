"""Refuses what this engine, or one of its ways to generate, cannot honour."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

from engines.errors import ContextLengthExceeded, InvalidParameter, UnsupportedParameter
from engines.types import GenerationRequest, SamplingParams


def check_supported(request: GenerationRequest, honoured: Collection[str]) -> None:
    """Raise `UnsupportedParameter` for what is asked for and not in `honoured`.

    So a parameter that this engine does not know yet is refused too, and not ignored.
    """
    for name in request.extra:
        raise UnsupportedParameter(name, "transformers")
    usual = SamplingParams()
    for field in fields(SamplingParams):
        name, value = field.name, getattr(request.sampling, field.name)
        if name not in honoured and value != getattr(usual, name):
            # A constraint knows which of several fields asked for it.
            raise UnsupportedParameter(getattr(value, "param", name), "transformers")


def resolve_max_tokens(n_prompt: int, asked: int | None, context_length: int) -> int:
    """Return how many tokens a choice may generate. Raises `ContextLengthExceeded`."""
    if asked is not None and asked < 1:
        raise InvalidParameter("max_tokens", f"max_tokens must be at least 1, not {asked}")
    # Every answer has one token at least.
    if n_prompt + (asked or 1) > context_length:
        raise ContextLengthExceeded(context_length, n_prompt, asked)
    return asked or context_length - n_prompt
