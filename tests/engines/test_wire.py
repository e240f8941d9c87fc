from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engines import errors, wire
from engines.core import StepOutput
from engines.errors import ContextLengthExceeded, EngineError, EngineOverloaded
from engines.types import (
    Event,
    GenerationRequest,
    Message,
    Prompt,
    SamplingParams,
    Special,
    Text,
    TokenLogprob,
    Tool,
    ToolCall,
    TopLogprob,
)
from engines.wire_sampling import WireSampling
from engines.wire_types import (
    pack_error,
    pack_output,
    pack_request,
    unpack_error,
    unpack_output,
    unpack_request,
)

text = st.text(max_size=8)
numbers = st.integers(0, 2**31)
floats = st.floats(allow_nan=False)
texts = st.lists(text, max_size=3).map(tuple)
BASIC: dict[Any, st.SearchStrategy[Any]] = {
    int: numbers,
    str: text,
    float: floats,
    int | None: st.none() | numbers,
    str | None: st.none() | text,
    tuple[str, ...]: texts,
    tuple[int, ...]: st.lists(numbers, max_size=3).map(tuple),
    tuple[tuple[int, float], ...]: st.lists(st.tuples(numbers, floats), max_size=3).map(tuple),
}


def build(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Values of a domain type with every field drawn, those added later too."""
    hints = get_type_hints(kind)
    if "bytes" in hints:  # a field of that name hides the type behind its own annotation
        hints["bytes"] = bytes
    return st.builds(
        kind, **{name: BASIC.get(hint, st.from_type(hint)) for name, hint in hints.items()}
    )


def many(kind: Any) -> st.SearchStrategy[Any]:
    return st.lists(kind, max_size=3).map(tuple)


BASIC[tuple[TopLogprob, ...]] = many(build(TopLogprob))
BASIC[tuple[TokenLogprob, ...]] = many(build(TokenLogprob))
BASIC[tuple[ToolCall, ...]] = many(build(ToolCall))
BASIC[tuple[Message, ...]] = many(build(Message))
BASIC[tuple[Tool, ...]] = many(build(Tool))
BASIC[tuple[Text | Special, ...]] = many(build(Text) | build(Special))
BASIC[Prompt] = st.one_of(*map(build, get_args(Prompt)))
BASIC[SamplingParams] = build(SamplingParams)
BASIC[Mapping[str, object]] = st.dictionaries(
    text, st.none() | st.booleans() | numbers | text, max_size=3
)
requests = build(GenerationRequest)
events = st.one_of(*map(build, get_args(Event)))


def to_child(message: wire.ToChild) -> wire.ToChild:
    (body,) = wire.FrameBuffer().feed(wire.encode(message))
    return wire.decode_to_child(body)


def to_parent(message: wire.ToParent) -> wire.ToParent:
    (body,) = wire.FrameBuffer().feed(wire.encode(message))
    return wire.decode_to_parent(body)


@given(requests)
def test_requests_arrive_as_they_were_sent(request: GenerationRequest) -> None:
    received = to_child(wire.Submit(pack_request(request, request.request_id)))
    assert isinstance(received, wire.Submit)
    assert unpack_request(received.request) == request


def test_sampling_has_the_same_fields_on_the_wire() -> None:
    names = tuple(field.name for field in dataclasses.fields(SamplingParams))
    assert WireSampling.__struct_fields__ == names


@given(st.lists(events, max_size=5).map(tuple))
def test_events_arrive_as_they_were_sent(sent: tuple[Event, ...]) -> None:
    received = to_parent(wire.Outputs(1, 2, (pack_output(StepOutput("id", sent)),)))
    assert isinstance(received, wire.Outputs)
    assert unpack_output(received.outputs[0]) == StepOutput("id", sent)


def make_error(kind: type[EngineError]) -> EngineError:
    """An error of a class, with something for each argument of its constructor."""
    values: dict[str, Any] = {"int": 7, "int | None": 7, "str": "x", "str | None": "x"}
    values |= {"Sequence[str]": ["a", "b"], "bool": True}
    if "__init__" not in vars(kind) and kind.__init__ is Exception.__init__:
        return kind("it went wrong")
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return kind("it went wrong")
    return kind(**{p.name: values[str(p.annotation)] for p in parameters})


KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, EngineError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_arrives_as_the_same_class(kind: type[EngineError]) -> None:
    sent = make_error(kind)
    output = wire.Outputs(1, 1, (pack_output(StepOutput("id", error=sent)),))
    received = to_parent(output)
    assert isinstance(received, wire.Outputs)
    error = unpack_output(received.outputs[0]).error
    assert error is not None
    assert (type(error), str(error), vars(error)) == (kind, str(sent), vars(sent))


def test_the_fields_of_an_error_are_kept() -> None:
    error = unpack_error(pack_error(ContextLengthExceeded(10, 8, 5)))
    assert isinstance(error, ContextLengthExceeded)
    assert (error.limit, error.prompt_tokens, error.max_tokens) == (10, 8, 5)
    assert error.param == "messages"


def test_a_class_of_a_cores_own_arrives_as_its_parent() -> None:
    class Special(EngineOverloaded):
        pass

    error = unpack_error(pack_error(Special("full", 9)))
    assert type(error) is EngineOverloaded
    assert error.retry_after == 9


def test_an_unknown_class_cannot_be_named() -> None:
    packed = msgspec.structs.replace(
        pack_error(EngineError("x")), kind="SystemExit", attributes={"__class__": "int", "param": 1}
    )
    error = unpack_error(packed)
    assert type(error) is EngineError
    assert vars(error) == {"param": 1}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.data())
def test_frames_are_found_however_reads_cut_them(sizes: list[int], data: st.DataObject) -> None:
    sent = [wire.Cancel("x" * size) for size in sizes]
    stream = b"".join(map(wire.encode, sent))
    buffer, received = wire.FrameBuffer(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        received += [wire.decode_to_child(body) for body in buffer.feed(stream[:cut])]
        stream = stream[cut:]
    assert received == sent


def test_a_frame_above_the_cap_is_refused_on_both_sides() -> None:
    with pytest.raises(wire.FrameError, match="cap"):
        wire.encode(wire.Cancel("x" * (wire.MAX_FRAME_BYTES + 1)))
    with pytest.raises(wire.FrameError, match="cap"):
        list(wire.FrameBuffer().feed(b"\xff\xff\xff\xff"))


@given(st.binary(max_size=40))
@example(b"\x91\xa6\x00\x00\x00\x00\x00\x80")  # a tag that is no UTF-8
def test_garbage_is_a_frame_error(body: bytes) -> None:
    for decode in (wire.decode_to_child, wire.decode_to_parent):
        with contextlib.suppress(wire.FrameError):
            decode(body)


def test_each_side_takes_only_what_is_meant_for_it() -> None:
    with pytest.raises(wire.FrameError):
        wire.decode_to_parent(wire.encode(wire.Cancel("x"))[4:])
    with pytest.raises(wire.FrameError):
        wire.decode_to_child(wire.encode(wire.Loaded(1))[4:])


def test_options_may_hold_paths_and_nothing_stranger() -> None:
    launch = to_child(wire.Launch("a:b", {"path": Path("/m.gguf"), "n": 1}))
    assert launch == wire.Launch("a:b", {"path": "/m.gguf", "n": 1})
    with pytest.raises(TypeError, match="no form"):
        wire.encode(wire.Launch("a:b", {"x": object()}))
