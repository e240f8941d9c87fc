"""Constrained answers of the core: where they end, what they may hold, what frees them."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from engines.errors import InvalidParameter
from engines.types import Constraint, Grammar, JsonObject, JsonSchema, OneOf, Regex, SamplingParams
from tests.engines.core_driving import (
    GREEDY,
    chat,
    finish,
    logprobs,
    reasons,
    request,
    run,
    text_of,
    usage,
)

if TYPE_CHECKING:
    from engines.llama_cpp.core import LlamaCppCore

    MakeCore = Callable[..., LlamaCppCore]

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "mood": {"enum": ["glad", "sad"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
    },
    "required": ["name", "age", "mood"],
    "additionalProperties": False,
}
SCHEMA = JsonSchema(json.dumps(PERSON))
HOT = SamplingParams(temperature=1.0, max_tokens=200, seed=1, n=4)


def constrained(constraint: Constraint, params: SamplingParams = GREEDY, **more: Any) -> Any:
    return replace(params, constraint=constraint, **more)


@pytest.mark.parametrize("params", [HOT, replace(GREEDY, max_tokens=200)], ids=["drawn", "greedy"])
def test_every_choice_validates(trained_core: LlamaCppCore, params: SamplingParams) -> None:
    for seed in range(5):
        sampling = constrained(SCHEMA, params, seed=seed)
        events = run(trained_core, request(chat("Who are you?"), sampling))["a"]
        for index, reason in reasons(events).items():
            if reason == "stop":
                jsonschema.validate(json.loads(text_of(events, index)), PERSON)


def test_random_weights_validate_too(core: LlamaCppCore) -> None:
    ended = 0
    for seed in range(10):
        events = run(core, request("the quick", constrained(SCHEMA, HOT, seed=seed)))["a"]
        for index, reason in reasons(events).items():
            if reason == "stop":
                ended += 1
                jsonschema.validate(json.loads(text_of(events, index)), PERSON)
    assert ended > 20


def test_the_answer_ends_where_nothing_may_follow(core: LlamaCppCore) -> None:
    events = run(core, request("the", constrained(OneOf(("yes", "no")), GREEDY)))["a"]
    assert text_of(events) in ("yes", "no")
    assert reasons(events) == {0: "stop"}
    # No token was spent on the end.
    assert usage(events).completion_tokens <= len(text_of(events))


def test_complete_with_the_last_token_is_a_stop(core: LlamaCppCore) -> None:
    sampling = constrained(Regex("[^a]"), GREEDY, max_tokens=1, min_tokens=1, ignore_eos=True)
    events = run(core, request("the", sampling))["a"]
    assert reasons(events) == {0: "stop"}


def test_cut_by_max_tokens_it_says_so(core: LlamaCppCore) -> None:
    events = run(core, request("the", constrained(Regex("[a-z]{400}"), GREEDY)))["a"]
    assert reasons(events) == {0: "length"}
    assert text_of(events).isalpha()


@pytest.mark.parametrize("more", [{}, {"ignore_eos": True}, {"min_tokens": 5}], ids=str)
def test_nothing_is_an_answer(core: LlamaCppCore, more: dict[str, Any]) -> None:
    events = run(core, request("the", constrained(OneOf(("",)), GREEDY, **more)))["a"]
    assert (text_of(events), reasons(events)) == ("", {0: "stop"})


def test_min_tokens_keeps_the_model_from_ending_where_it_could(core: LlamaCppCore) -> None:
    bias = tuple((token, 100.0) for token in core._model.vocabulary.end_tokens)
    short = constrained(Regex("[a-z]*"), GREEDY, logit_bias=bias)
    assert text_of(run(core, request("the", short))["a"]) == ""
    long = run(core, request("the", replace(short, min_tokens=6)))["a"]
    assert usage(long).completion_tokens == 7


def test_a_bias_cannot_break_a_constraint(core: LlamaCppCore) -> None:
    token = core._model.vocabulary.pieces.index(b"x")
    sampling = constrained(OneOf(("yes",)), GREEDY, logit_bias=((token, 100.0),))
    assert text_of(run(core, request("the", sampling))["a"]) == "yes"


def test_logprobs_are_those_of_the_model_itself(core: LlamaCppCore) -> None:
    free = run(core, request("the", replace(GREEDY, logprobs=3, max_tokens=1)))["a"]
    bound = run(core, request("the", constrained(OneOf(("yes", "no")), GREEDY, logprobs=3)))["a"]
    assert logprobs(bound)[0].top == logprobs(free)[0].top
    chosen, likeliest = logprobs(bound)[0].logprob, logprobs(free)[0].logprob
    assert chosen is not None and likeliest is not None
    assert chosen < likeliest


def test_constrained_and_free_requests_run_together(core: LlamaCppCore) -> None:
    alone = text_of(run(core, request("the", GREEDY))["a"])
    together = run(
        core,
        request("the", GREEDY, "free"),
        request("the", constrained(Grammar('root ::= "(" root ")" | "x"'), HOT, n=1), "grammar"),
        request("the", constrained(JsonObject(), HOT, n=2), "object"),
    )
    assert text_of(together["free"]) == alone
    inner = text_of(together["grammar"]).strip("()")
    assert inner in ("x", "")


def test_typical_p_reaches_the_draw(core: LlamaCppCore) -> None:
    def texts(typical_p: float) -> set[str]:
        sampling = replace(HOT, temperature=3.0, typical_p=typical_p, max_tokens=4)
        events = run(core, request("the", sampling))["a"]
        return {text_of(events, index) for index in range(4)}

    assert texts(0.01) != texts(1.0)


def test_a_constraint_that_does_not_compile_leaves_nothing_behind(core: LlamaCppCore) -> None:
    with pytest.raises(InvalidParameter, match="unclosed group") as caught:
        core.submit(request("the", constrained(Regex("(", "guided_regex"), HOT)))
    assert caught.value.param == "guided_regex"
    assert not core.has_work()
    assert text_of(run(core, request("the"))["a"])


def test_too_much_on_the_way_ends_that_request_alone(
    core: LlamaCppCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llguidance import LLParserLimits

    from engines.llama_cpp import constraints

    few = LLParserLimits(max_lexer_states=60, verbose_errors=False)
    monkeypatch.setattr(constraints, "_limits", lambda: few)
    core.submit(request("the", constrained(Regex(".*a.{9}b.*c.{9}d"), HOT), "hard"))
    core.submit(request("the", GREEDY, "easy"))
    errors: dict[str, Exception] = {}
    reason = ""
    while core.has_work():
        for output in core.step():
            if output.error is not None:
                errors[output.request_id] = output.error
            reason += reasons(list(output.events)).get(0, "")
    assert list(errors) == ["hard"]
    assert isinstance(errors["hard"], InvalidParameter)
    assert reason == "length"


def test_cancelling_frees_the_state(core: LlamaCppCore) -> None:
    core.submit(request("the", constrained(Regex("[a-z]{400}"), HOT)))
    core.step()
    states = [weakref.ref(c.sampler._constraint) for c in core._requests["a"].choices]
    core.cancel("a")
    gc.collect()
    assert len(states) == 4
    assert all(state() is None for state in states)
    assert finish(core) == {}
