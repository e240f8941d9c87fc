"""Sampling parameters as they travel on the wire; see `engines.wire_types`."""

from __future__ import annotations

from dataclasses import fields
from typing import assert_never

import msgspec

from engines.types import (
    Constraint,
    Grammar,
    JsonObject,
    JsonSchema,
    OneOf,
    Regex,
    SamplingParams,
)


class _Struct(msgspec.Struct, frozen=True, array_like=True):
    """An array on the wire: its fields in order, after the tag if it has one."""


class WireJsonSchema(_Struct, frozen=True, tag="json_schema"):
    """A `JsonSchema`."""

    value: JsonSchema


class WireJsonObject(_Struct, frozen=True, tag="json_object"):
    """A `JsonObject`."""

    value: JsonObject


class WireGrammar(_Struct, frozen=True, tag="grammar"):
    """A `Grammar`."""

    value: Grammar


class WireRegex(_Struct, frozen=True, tag="regex"):
    """A `Regex`."""

    value: Regex


class WireOneOf(_Struct, frozen=True, tag="one_of"):
    """A `OneOf`."""

    value: OneOf


WireConstraint = WireJsonSchema | WireJsonObject | WireGrammar | WireRegex | WireOneOf


def pack_constraint(constraint: Constraint) -> WireConstraint:
    """Turn a constraint into its wire form."""
    match constraint:
        case JsonSchema():
            return WireJsonSchema(constraint)
        case JsonObject():
            return WireJsonObject(constraint)
        case Grammar():
            return WireGrammar(constraint)
        case Regex():
            return WireRegex(constraint)
        case OneOf():
            return WireOneOf(constraint)
        case _:
            assert_never(constraint)


class WireSampling(_Struct, frozen=True):
    """A `SamplingParams`: the same fields, by the same names."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    stop: tuple[str, ...]
    stop_token_ids: tuple[int, ...]
    logit_bias: tuple[tuple[int, float], ...]
    logprobs: int | None
    n: int
    echo: bool
    typical_p: float
    constraint: WireConstraint | None


def pack_sampling(params: SamplingParams) -> WireSampling:
    """Turn sampling parameters into their wire form."""
    values = {field.name: getattr(params, field.name) for field in fields(params)}
    if params.constraint is not None:
        values["constraint"] = pack_constraint(params.constraint)
    return WireSampling(**values)


def unpack_sampling(wire: WireSampling) -> SamplingParams:
    """Turn the wire form back into the parameters."""
    values = {name: getattr(wire, name) for name in wire.__struct_fields__}
    if wire.constraint is not None:
        values["constraint"] = wire.constraint.value
    return SamplingParams(**values)
