"""Adapters' own generate functions, through the whole core."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")


from engines.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineOverloaded,
    EngineUnavailable,
    InvalidRequest,
    UnsupportedParameter,
)
from engines.types import (
    Event,
    Message,
    MessagesPrompt,
    PartsPrompt,
    Prompt,
    SamplingParams,
    Special,
    Text,
    TextDelta,
    TokensPrompt,
)
from tests.engines.core_driving import reasons, request, run, text_of, usage
from tests.engines.transformers import generate_functions

if TYPE_CHECKING:
    from engines.transformers.streams import StreamCore

PLAIN = SamplingParams(max_tokens=50)
MODULE = generate_functions.__name__


@pytest.fixture(autouse=True)
def no_calls() -> Iterator[None]:
    generate_functions.calls.clear()
    yield


def make(function: str, loader: str = "load", **options: int) -> StreamCore:
    from engines.transformers.core import create_core
    from engines.transformers.streams import StreamCore

    core = create_core(
        model_path="",
        loader=f"{MODULE}:{loader}",
        stream=f"{MODULE}:{function}",
        device="cpu",
        n_threads=1,
        **options,
    )
    assert isinstance(core, StreamCore)
    return core


def test_its_pieces_are_the_answer() -> None:
    core = make("echo")
    events = run(core, request("hello you", PLAIN))["a"]
    assert text_of(events) == "hello you"
    assert reasons(events) == {0: "stop"}
    assert (usage(events).prompt_tokens, usage(events).completion_tokens) == (10, 10)


def test_it_is_told_what_dbgpt_told() -> None:
    sampling = SamplingParams(temperature=0.3, top_p=0.8, max_tokens=20, stop=("###",))
    run(make("echo", context_length=99), request("hello", sampling))
    assert generate_functions.calls == [
        {
            "prompt": "hello",
            "messages": [],
            "temperature": 0.3,
            "top_p": 0.8,
            "top_k": -1,
            "repetition_penalty": 1.0,
            "max_new_tokens": 20,
            "stop": "###",
            "stop_token_ids": [],
            "echo": False,
            "device": "cpu",
            "context_len": 99,
        }
    ]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (PartsPrompt((Special("<s>"), Text("a"), Special("</s>"))), "a</s>"),
        (TokensPrompt((1, 97, 98)), "ab"),
        (
            MessagesPrompt((Message("system", "Be kind."), Message("user", "Hi"))),
            "system:Be kind.###human:Hi###ai:",
        ),
    ],
)
def test_every_prompt_becomes_text(prompt: Prompt, text: str) -> None:
    run(make("echo"), request(prompt, PLAIN))
    assert generate_functions.calls[0]["prompt"] == text


def test_messages_are_there_too_and_the_separator_stops() -> None:
    run(make("echo"), request(MessagesPrompt((Message("user", "Hi"),)), PLAIN))
    assert generate_functions.calls[0]["messages"] == [{"role": "human", "content": "Hi"}]
    assert generate_functions.calls[0]["stop"] == "###"


@pytest.mark.parametrize("stop", ["lo", "o y", "ello y", "u"])
def test_a_stop_string_ends_it_and_is_not_shown(stop: str) -> None:
    core = make("echo")
    text = "hello you all"
    events = run(core, request(text, SamplingParams(max_tokens=50, stop=(stop,))))["a"]
    assert text_of(events) == text[: text.index(stop)]
    assert reasons(events) == {0: "stop"}


def test_the_prompts_own_stops_count_too() -> None:
    prompt = PartsPrompt((Text("hello USER: you"),), stop=("USER:",), stop_tokens=("</s>",))
    assert text_of(run(make("echo"), request(prompt, PLAIN))["a"]) == "hello "
    assert generate_functions.calls[0]["stop"] == ["USER:", "</s>"]


def test_an_endless_one_ends_at_max_tokens() -> None:
    events = run(make("endless"), request("a", SamplingParams(max_tokens=7)))["a"]
    assert text_of(events) == "x" * 7
    assert reasons(events) == {0: "length"}
    assert generate_functions.closed.wait(5)


def test_requests_and_choices_run_one_after_the_other() -> None:
    core = make("echo")
    two = SamplingParams(max_tokens=50, n=2)
    events = run(core, *(request(f"hello {i}", two, str(i)) for i in range(3)))
    for i in range(3):
        assert [text_of(events[str(i)], index) for index in (0, 1)] == [f"hello {i}"] * 2
        assert reasons(events[str(i)]) == {0: "stop", 1: "stop"}
        assert usage(events[str(i)]).completion_tokens == 16


def test_a_seed_repeats_and_choices_count_up() -> None:
    core = make("drawn")
    both = run(core, request("a", SamplingParams(max_tokens=50, seed=5, n=2)))["a"]
    again = run(core, request("a", SamplingParams(max_tokens=50, seed=6)))["a"]
    assert text_of(both, 0) != text_of(both, 1) == text_of(again)


def test_a_cancelled_one_stops_and_the_next_runs() -> None:
    core = make("endless")
    core.submit(request("a", SamplingParams(max_tokens=2000), "victim"))
    core.submit(request("a", SamplingParams(max_tokens=3), "next"))
    core.submit(request("a", PLAIN, "queued"))
    events: list[Event] = []
    while not any(isinstance(event, TextDelta) for event in events):
        events += [event for output in core.step() for event in output.events]
    core.cancel("victim")
    core.cancel("queued")
    core.cancel("unknown")
    assert set(run(core)) == {"next"}
    assert generate_functions.closed.wait(5)


def test_a_failing_one_ends_its_request_only_and_tells_no_secret() -> None:
    core = make("broken")
    core.submit(request("a", PLAIN))
    errors = []
    while core.has_work():
        errors += [output.error for output in core.step() if output.error is not None]
    assert [type(error) for error in errors] == [EngineError]
    assert "secret" not in str(errors[0])
    assert not core.has_work()


@pytest.mark.parametrize("name", ["logprobs", "min_tokens", "logit_bias", "presence_penalty"])
def test_what_it_cannot_be_told_is_refused(name: str) -> None:
    value = {"logprobs": 1, "min_tokens": 2, "logit_bias": ((1, 1.0),), "presence_penalty": 1.0}
    core = make("echo")
    with pytest.raises(UnsupportedParameter) as caught:
        core.submit(request("a", SamplingParams(**{name: value[name]})))  # type: ignore[arg-type]
    assert caught.value.param == name


def test_what_does_not_fit_or_is_empty_is_refused() -> None:
    core = make("echo", context_length=16)
    with pytest.raises(ContextLengthExceeded):
        core.submit(request("a" * 16, SamplingParams()))
    with pytest.raises(InvalidRequest, match="empty"):
        core.submit(request("", SamplingParams()))
    core.submit(request("a", SamplingParams()))
    with pytest.raises(InvalidRequest, match="in use"):
        core.submit(request("a", SamplingParams()))


def test_a_full_queue_refuses() -> None:
    core = make("endless", max_queue=1)
    core.submit(request("a", PLAIN, "a"))
    core.submit(request("a", PLAIN, "b"))
    with pytest.raises(EngineOverloaded):
        core.submit(request("a", PLAIN, "c"))
    core.close()


def test_without_a_tokenizer_tokens_are_estimated() -> None:
    core = make("echo", loader="load_without_tokenizer")
    events = run(core, request("hello you", PLAIN))["a"]
    assert (usage(events).prompt_tokens, usage(events).completion_tokens) == (3, 3)
    for prompt in (TokensPrompt((1,)), PartsPrompt((Text("a"),))):
        with pytest.raises(InvalidRequest):
            core.tokenize(prompt)


def test_tokenize_asks_its_tokenizer() -> None:
    assert make("echo").tokenize(PartsPrompt((Text("ab"),))) == (1, 97, 98)


def test_closing_ends_everything() -> None:
    core = make("endless")
    core.submit(request("a", PLAIN))
    core.step()
    core.close()
    core.close()
    assert not core.has_work()
    assert core.step() == []
    with pytest.raises(EngineUnavailable):
        core.submit(request("a"))
    with pytest.raises(EngineUnavailable):
        core.tokenize(PartsPrompt((Text("a"),)))
