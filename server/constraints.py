"""What an answer must be: from the several ways a client may say it to one `Constraint`.

OpenAI's `response_format`; vLLM's `structured_outputs`, and `guided_*` as it was called before;
llama-server's `grammar`. At most one of them is set (`server.protocol`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from engines.types import Constraint, Grammar, JsonObject, JsonSchema, OneOf, Regex
from server.protocol import ResponseFormat, SamplingFields, Schema, StructuredOutputs, Wire

# What else `structured_outputs` may hold in vLLM 0.32.
_OF_VLLM = (
    "structural_tag",
    "whitespace_pattern",
    "disable_fallback",
    "disable_any_whitespace",
    "disable_additional_properties",
)


def constraint_of(wire: SamplingFields) -> Constraint | None:
    """Return the constraint a body asks for."""
    if wire.response_format is not None and wire.response_format.type != "text":
        return _of_format(wire.response_format)
    if wire.structured_outputs is not None:
        return _of_structured(wire.structured_outputs)
    if wire.grammar is not None:
        return Grammar(wire.grammar, "grammar")
    if wire.guided_json is not None:
        return _schema(wire.guided_json, "guided_json")
    if wire.guided_regex is not None:
        return Regex(wire.guided_regex, "guided_regex")
    if wire.guided_choice is not None:
        return OneOf(tuple(wire.guided_choice), "guided_choice")
    if wire.guided_grammar is not None:
        return Grammar(wire.guided_grammar, "guided_grammar")
    return None


def unknown_options(wire: SamplingFields) -> dict[str, object]:
    """Return what stands in these fields that nobody here knows, by its wire name.

    A name that vLLM does not know either may be the client's own words: then the field it
    stands in is named.
    """
    parts: Mapping[str, Wire | None] = {
        "response_format": wire.response_format,
        "response_format.json_schema": wire.response_format and wire.response_format.json_schema,
        "structured_outputs": wire.structured_outputs,
    }
    return {
        f"{path}.{name}" if name in _OF_VLLM else path: value
        for path, part in parts.items()
        if part is not None
        for name, value in (part.model_extra or {}).items()
        if value is not None
    }


def _of_format(wire: ResponseFormat) -> Constraint:
    if wire.json_schema is not None:
        # OpenAI lets the schema be left out: then any JSON will do.
        return _schema(wire.json_schema.schema_ or {}, "response_format.json_schema.schema")
    if wire.schema_ is not None:
        return _schema(wire.schema_, "response_format.schema")
    return JsonObject("response_format")


def _of_structured(wire: StructuredOutputs) -> Constraint | None:
    if wire.json_ is not None:
        return _schema(wire.json_, "structured_outputs.json")
    if wire.regex is not None:
        return Regex(wire.regex, "structured_outputs.regex")
    if wire.choice is not None:
        return OneOf(tuple(wire.choice), "structured_outputs.choice")
    if wire.grammar is not None:
        return Grammar(wire.grammar, "structured_outputs.grammar")
    return JsonObject("structured_outputs.json_object") if wire.json_object else None


def _schema(schema: Schema, param: str) -> JsonSchema:
    text = schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False)
    return JsonSchema(text, param)
