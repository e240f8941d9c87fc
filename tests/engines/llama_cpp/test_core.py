from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from engines.core import Core, StepOutput
from engines.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineOverloaded,
    EngineUnavailable,
    InvalidParameter,
    InvalidRequest,
    UnsupportedParameter,
)
from engines.types import (
    Event,
    Finish,
    GenerationRequest,
    Message,
    MessagesPrompt,
    PartsPrompt,
    SamplingParams,
    Special,
    Text,
    TextDelta,
    TokenLogprob,
    TokensPrompt,
)
from tests.engines.core_driving import (
    GREEDY,
    answer,
    finish,
    logprobs,
    prompt,
    reasons,
    request,
    run,
    text_of,
    usage,
)

if TYPE_CHECKING:
    from engines.llama_cpp.core import LlamaCppCore

    MakeCore = Callable[..., LlamaCppCore]

EOS = 2
SAMPLED = SamplingParams(seed=3, max_tokens=24)


def tokens_of(text: list[TokenLogprob]) -> list[bytes]:
    return [entry.bytes for entry in text]


def measured(token: TokenLogprob) -> float:
    assert token.logprob is not None
    return token.logprob


def assert_same_tokens(ours: list[TokenLogprob], theirs: list[TokenLogprob]) -> None:
    """The same greedy tokens, up to a first place where two were as good as equally likely.

    llama.cpp's logits depend in the last digits on what else is in the batch.
    """
    for one, other in zip(ours, theirs, strict=True):
        if one.bytes != other.bytes:
            assert one.top[0].logprob - one.top[1].logprob < 0.05
            return
        assert one.logprob == pytest.approx(other.logprob, abs=0.1)


def test_it_is_a_core(core: LlamaCppCore) -> None:
    as_core: Core = core
    assert as_core.context_length == 512
    assert not as_core.has_work()
    assert list(as_core.step()) == []
    assert "llama" in core.detail


@pytest.mark.parametrize("seed", range(5))
def test_streamed_text_is_the_whole_text(core: LlamaCppCore, seed: int) -> None:
    sampling = replace(SAMPLED, seed=seed, max_tokens=60, logprobs=0, n=2)
    events = run(core, request("日本語 the quick brown", sampling))["a"]
    for index in range(2):
        whole = b"".join(tokens_of(logprobs(events, index))).decode("utf-8", "replace")
        assert text_of(events, index) == whole
        assert "\ufffd" in whole


def test_deltas_come_step_by_step_and_usage_last(core: LlamaCppCore) -> None:
    core.submit(request("the quick", replace(GREEDY, max_tokens=3, logprobs=0)))
    steps = []
    while core.has_work():
        steps += core.step()
    assert 1 < len(steps) <= 3
    events = [event for output in steps for event in output.events]
    assert usage(events).completion_tokens == 3
    assert usage(events).prompt_tokens == len(core.tokenize(prompt("the quick")))
    assert [type(event) for event in events[-2:-1]] == [Finish]


def test_requests_in_flight_give_what_they_give_alone(core: LlamaCppCore) -> None:
    sampling = replace(GREEDY, logprobs=2)
    texts = ["the quick", "hello world", "日本語", "some numbers are one two three", "dog", "zz"]
    alone = [run(core, request(text, sampling, "a"))["a"] for text in texts]
    together = run(core, *(request(text, sampling, text) for text in texts))
    for text, events in zip(texts, alone, strict=True):
        assert_same_tokens(logprobs(events), logprobs(together[text]))
        assert usage(events).completion_tokens == usage(together[text]).completion_tokens


@pytest.mark.parametrize("options", [{"kv_unified": True}, {"prefill_chunk": 3, "n_slots": 2}])
def test_other_shapes_give_the_same(make_core: MakeCore, options: dict[str, Any]) -> None:
    sampling = replace(GREEDY, logprobs=2)
    texts = ["the quick brown fox jumps", "the quick brown dog", "hello"]
    events = run(make_core(), *(request(text, sampling, text) for text in texts))
    others = run(make_core(**options), *(request(text, sampling, text) for text in texts))
    for text in texts:
        assert_same_tokens(logprobs(events[text]), logprobs(others[text]))


def test_a_long_prompt_does_not_stall_a_running_answer(make_core: MakeCore) -> None:
    core = make_core(prefill_chunk=16)
    core.submit(request("the quick", replace(GREEDY, max_tokens=100, logprobs=0), "short"))
    core.step()
    core.submit(request(TokensPrompt(tuple([9] * 200)), GREEDY, "long"))
    before_long = 0
    while not any(output.request_id == "long" for output in core.step()):
        before_long += 1
    assert before_long >= 200 // 16 - 1
    running = core._requests["short"].choices[0].choice
    assert running.n_generated >= before_long


@pytest.mark.parametrize("seed", range(4))
def test_a_stop_string_is_never_shown_wherever_it_lies(core: LlamaCppCore, seed: int) -> None:
    sampling = replace(SAMPLED, seed=seed, max_tokens=40)
    whole = answer(core, "the quick", sampling)
    rng = random.Random(seed)
    for _ in range(4):
        start = rng.randrange(1, len(whole) - 8)
        stop = whole[start : start + rng.randint(1, 8)]
        events = run(core, request("the quick", replace(sampling, stop=(stop, "\ufffe"))))["a"]
        # The draws are those of the whole answer as long as the cached prompt gives its logits.
        assert stop not in text_of(events)
        assert text_of(events) == whole[: whole.index(stop)]
        assert reasons(events) == {0: "stop"}


def test_the_stops_of_the_prompt_count_too(core: LlamaCppCore) -> None:
    whole = answer(core, "the quick")
    parts = PartsPrompt((Text("the quick"),), stop=(whole[5:8],))
    assert answer(core, parts) == whole[: whole.index(whole[5:8])]


def test_text_cut_off_by_a_stop_is_counted(core: LlamaCppCore) -> None:
    whole = answer(core, "the quick")
    events = run(core, request("the quick", replace(GREEDY, stop=(whole[0],))))["a"]
    assert text_of(events) == ""
    assert usage(events).completion_tokens >= 1


def force(token: int) -> SamplingParams:
    return replace(GREEDY, logit_bias=((token, 100.0),))


def test_the_end_token_ends_without_text_and_is_counted(core: LlamaCppCore) -> None:
    events = run(core, request("the quick", force(EOS)))["a"]
    assert events[:-1] == [Finish(0, "stop")]
    assert usage(events).completion_tokens == 1


def test_min_tokens_bars_the_end(core: LlamaCppCore) -> None:
    events = run(core, request("the quick", replace(force(EOS), min_tokens=5)))["a"]
    assert reasons(events) == {0: "stop"}
    assert usage(events).completion_tokens == 6


def test_ignore_eos_goes_on_to_the_limit(core: LlamaCppCore) -> None:
    events = run(core, request("the quick", replace(force(EOS), ignore_eos=True)))["a"]
    assert reasons(events) == {0: "length"}
    assert usage(events).completion_tokens == GREEDY.max_tokens
    assert text_of(events) == ""


def test_stop_tokens_of_the_prompt_and_of_the_request_end(core: LlamaCppCore) -> None:
    user = core._model.vocabulary.special_id("<|user|>")
    assert user is not None
    parts = PartsPrompt((Text("the"),), stop_tokens=("<|user|>",))
    for text, sampling in (
        (parts, force(user)),
        (prompt("the"), replace(force(user), stop_token_ids=(user,))),
        (prompt("the"), replace(force(user), stop_token_ids=(user,), ignore_eos=True)),
    ):
        events = run(core, request(text, sampling))["a"]
        assert (text_of(events), reasons(events)) == ("", {0: "stop"})
    ignored = run(core, request(parts, replace(force(user), ignore_eos=True)))["a"]
    assert reasons(ignored) == {0: "length"}


def test_a_seed_repeats_an_answer_and_none_does_not(core: LlamaCppCore) -> None:
    first = answer(core, "the quick", SAMPLED)
    assert answer(core, "the quick", SAMPLED) == first
    assert answer(core, "the quick", replace(SAMPLED, seed=4)) != first
    unseeded = replace(SAMPLED, seed=None)
    assert answer(core, "the quick", unseeded) != answer(core, "the quick", unseeded)


@pytest.mark.parametrize("n_slots", [1, 2, 4])
def test_choices_are_those_of_the_seeds_that_follow(make_core: MakeCore, n_slots: int) -> None:
    core = make_core(n_slots=n_slots)
    text = "the quick brown fox jumps over the lazy dog and then the dog sleeps in the sun " * 2
    events = run(core, request(text, replace(SAMPLED, n=3, seed=10)))["a"]
    assert reasons(events) == dict.fromkeys(range(3), "length")
    for index in range(3):
        assert text_of(events, index) == answer(core, text, replace(SAMPLED, seed=10 + index))
    assert usage(events).completion_tokens == 3 * 24
    assert usage(events).prompt_tokens == len(core.tokenize(prompt(text)))


def test_choices_may_end_at_different_times(core: LlamaCppCore) -> None:
    sampling = replace(SAMPLED, n=3, stop=("e", "a"), max_tokens=60)
    events = run(core, request("hello", sampling))["a"]
    assert sorted(reasons(events)) == [0, 1, 2]
    finished: set[int] = set()
    for event in events[:-1]:
        assert isinstance(event, TextDelta | Finish)
        assert event.index not in finished
        if isinstance(event, Finish):
            finished.add(event.index)


def test_a_prompt_that_begins_the_same_is_not_computed_again(core: LlamaCppCore) -> None:
    text = "the quick brown fox jumps over the lazy dog"
    sampling = replace(GREEDY, logprobs=2)
    cold = run(core, request(text, sampling))["a"]
    warm = run(core, request(text, sampling))["a"]
    assert usage(cold).cached_tokens == 0
    assert usage(warm).cached_tokens == usage(warm).prompt_tokens - 1
    assert_same_tokens(logprobs(cold), logprobs(warm))


def test_the_next_turn_builds_on_the_answer(core: LlamaCppCore) -> None:
    first = core.tokenize(prompt("the quick"))
    core.submit(request(TokensPrompt(first), force(77)))
    finish(core)
    events = run(core, request(TokensPrompt((*first, *([77] * 10), 78)), GREEDY))["a"]
    assert usage(events).cached_tokens == len(first) + 10


def test_penalties_change_the_answer(core: LlamaCppCore) -> None:
    def repeats(**penalty: float) -> int:
        sampling = replace(GREEDY, max_tokens=80, logprobs=0, **penalty)  # type: ignore[arg-type]
        tokens = tokens_of(logprobs(run(core, request("the", sampling))["a"]))
        return len(tokens) - len(set(tokens))

    assert repeats(frequency_penalty=100.0) == 0
    assert repeats(presence_penalty=100.0) == 0
    assert repeats(repetition_penalty=1.5) < repeats()


def test_logit_bias_bars_and_forces(core: LlamaCppCore) -> None:
    assert answer(core, "the", force(77)) == core._model.vocabulary.pieces[77].decode() * 24
    first = logprobs(run(core, request("the", replace(GREEDY, logprobs=0)))["a"])[0]
    token = core._model.vocabulary.pieces.index(first.bytes)
    barred = replace(GREEDY, logit_bias=((token, -100.0),), logprobs=0)
    assert logprobs(run(core, request("the", barred))["a"])[0].bytes != first.bytes


def test_logprobs_are_the_models_own(core: LlamaCppCore) -> None:
    plain = logprobs(run(core, request("the", replace(GREEDY, logprobs=5)))["a"])[0]
    bent = replace(force(77), logprobs=5, temperature=2.0, seed=1, frequency_penalty=1.0)
    forced = logprobs(run(core, request("the", bent))["a"])[0]
    for ours, theirs in zip(forced.top, plain.top, strict=True):
        assert ours.bytes == theirs.bytes
        assert ours.logprob == pytest.approx(theirs.logprob, abs=0.05)
    assert forced.bytes == core._model.vocabulary.pieces[77]
    assert measured(forced) < measured(plain)


def test_logprobs_hold_for_every_shown_token(core: LlamaCppCore) -> None:
    whole = answer(core, "the quick")
    stop = whole[8:10]
    events = run(core, request("the quick", replace(GREEDY, logprobs=20, stop=(stop,))))["a"]
    entries = logprobs(events)
    joined = b"".join(tokens_of(entries)).decode("utf-8", "replace")
    assert joined.startswith(text_of(events))
    assert len(joined) - len(text_of(events)) < 12
    for entry in entries:
        assert len(entry.top) == 20
        assert measured(entry) <= entry.top[0].logprob <= 0
        assert [top.logprob for top in entry.top] == sorted(
            (top.logprob for top in entry.top), reverse=True
        )


def test_no_logprobs_unless_asked(core: LlamaCppCore) -> None:
    assert logprobs(run(core, request("the"))["a"]) == []


@pytest.mark.parametrize("n_steps", range(8))
@pytest.mark.parametrize("n", [1, 3])
def test_cancelling_at_any_time_frees_all_and_disturbs_nobody(
    make_core: MakeCore, n_steps: int, n: int
) -> None:
    core = make_core(n_slots=2, prefill_chunk=16)
    sampling = replace(GREEDY, logprobs=2)
    alone = run(core, request("hello world", sampling))["a"]
    core.submit(request("hello world", sampling, "other"))
    core.submit(request(TokensPrompt(tuple([9] * 50)), replace(SAMPLED, n=n), "victim"))
    core.submit(request("some numbers", replace(SAMPLED, n=n), "queued"))
    events: list[Event] = []
    for _ in range(n_steps):
        events += [e for o in core.step() if o.request_id == "other" for e in o.events]
    core.cancel("victim")
    core.cancel("queued")
    core.cancel("unknown")
    later = finish(core)
    assert set(later) <= {"other"}
    assert_same_tokens(logprobs(alone), logprobs(events + later["other"]))


def test_a_cancelled_slot_is_taken_by_the_next(make_core: MakeCore) -> None:
    core = make_core(n_slots=1)
    core.submit(request("the", replace(GREEDY, max_tokens=500), "victim"))
    core.submit(request("hello", GREEDY, "next"))
    assert {output.request_id for output in core.step()} <= {"victim"}
    core.cancel("victim")
    assert reasons(finish(core)["next"]) == {0: "length"}


def test_more_requests_than_slots_all_end(make_core: MakeCore) -> None:
    core = make_core(n_slots=2)
    events = run(core, *(request("the quick", SAMPLED, str(i)) for i in range(9)))
    assert len(events) == 9
    assert {text_of(each) for each in events.values()} == {text_of(events["0"])}


def test_a_full_queue_refuses_and_goes_on(make_core: MakeCore) -> None:
    core = make_core(n_slots=1, max_queue=1)
    core.submit(request("the", GREEDY, "a"))
    core.submit(request("the", GREEDY, "b"))
    with pytest.raises(EngineOverloaded):
        core.submit(request("the", GREEDY, "c"))
    assert set(finish(core)) == {"a", "b"}
    core.submit(request("the", GREEDY, "c"))
    assert set(finish(core)) == {"c"}


def test_a_request_may_fill_the_context(make_core: MakeCore) -> None:
    core = make_core(context_length=64, n_slots=2)
    endless = SamplingParams(temperature=0.0, ignore_eos=True)
    for n_prompt in (1, 40, 63):
        events = run(core, request(TokensPrompt(tuple([9] * n_prompt)), endless))["a"]
        assert usage(events).completion_tokens == 64 - n_prompt
        assert reasons(events) == {0: "length"}


@pytest.mark.parametrize(("n_prompt", "max_tokens"), [(64, None), (100, None), (64, 1), (40, 25)])
def test_what_does_not_fit_the_context_is_refused(
    make_core: MakeCore, n_prompt: int, max_tokens: int | None
) -> None:
    core = make_core(context_length=64)
    tokens = TokensPrompt(tuple([9] * n_prompt))
    with pytest.raises(ContextLengthExceeded) as caught:
        core.submit(request(tokens, SamplingParams(max_tokens=max_tokens)))
    assert (caught.value.limit, caught.value.prompt_tokens) == (64, n_prompt)
    core.submit(request(TokensPrompt(tuple([9] * 40)), replace(GREEDY, max_tokens=24)))
    finish(core)


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        (SamplingParams(logit_bias=((382, 1.0),)), "logit_bias"),
        (SamplingParams(stop_token_ids=(-1,)), "stop_token_ids"),
        (SamplingParams(max_tokens=0), "max_tokens"),
        (SamplingParams(repetition_penalty=0.0), "repetition_penalty"),
        (SamplingParams(n=0), "n"),
        (SamplingParams(logprobs=21), "logprobs"),
    ],
)
def test_values_only_the_engine_can_judge(
    core: LlamaCppCore, sampling: SamplingParams, param: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        core.submit(request("the", sampling))
    assert caught.value.param == param


def test_token_ids_outside_the_vocabulary_are_refused(core: LlamaCppCore) -> None:
    with pytest.raises(InvalidParameter) as caught:
        core.submit(request(TokensPrompt((1, 382))))
    assert caught.value.param == "prompt"


def test_prompts_it_cannot_run_are_refused(core: LlamaCppCore) -> None:
    for bad in (
        MessagesPrompt((Message("user", "hi"),)),
        PartsPrompt((), add_bos=False),
        PartsPrompt((Special("<nope>"),)),
    ):
        with pytest.raises(InvalidRequest):
            core.submit(request(bad))
    assert not core.has_work()


def test_an_unknown_field_is_refused_by_name(core: LlamaCppCore) -> None:
    with pytest.raises(UnsupportedParameter, match="guided_regex") as caught:
        core.submit(GenerationRequest("a", prompt("the"), GREEDY, {"guided_regex": "a+"}))
    assert caught.value.param == "guided_regex"


def test_an_id_in_use_is_refused(core: LlamaCppCore) -> None:
    core.submit(request("the"))
    with pytest.raises(InvalidRequest, match="in use"):
        core.submit(request("the"))
    assert usage(finish(core)["a"])


def test_tokenize_shows_what_a_request_uses(core: LlamaCppCore) -> None:
    parts = PartsPrompt((Text("the </s>"), Special("</s>"), Text("<|user|>")))
    ids = core.tokenize(parts)
    assert ids[0] == core._model.vocabulary.bos
    assert ids.count(EOS) == 1
    assert core._model.vocabulary.special_id("<|user|>") not in ids
    assert b"".join(core._model.vocabulary.pieces[i] for i in ids) == b"the </s><|user|>"
    assert usage(run(core, request(parts))["a"]).prompt_tokens == len(ids)


def test_a_failed_step_ends_those_in_it_and_the_core_goes_on(
    make_core: MakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = make_core(n_slots=2)
    sampling = replace(GREEDY, logprobs=2)
    before = run(core, request("hello", sampling))["a"]
    core.submit(request("the", SAMPLED, "a"))
    core.submit(request("the", replace(SAMPLED, n=2), "b"))
    core.submit(request("hello", sampling, "c"))
    core.step()
    # The library refuses a batch whose positions do not follow what a slot holds.
    monkeypatch.setattr(core, "_positions", core._positions + 5)
    outputs = core.step()
    monkeypatch.undo()
    assert {output.request_id for output in outputs} == {"a", "b"}
    for output in outputs:
        assert type(output.error) is EngineError
        assert "code -1" in str(output.error)
    assert all(core._context.held(slot.id) == 0 for slot in core._scheduler.slots)
    after = finish(core)
    assert_same_tokens(logprobs(before), logprobs(after["c"]))


def test_a_core_that_only_fails_gives_up(
    make_core: MakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engines.llama_cpp.binding import DecodeError
    from engines.llama_cpp.core import MAX_FAILED_STEPS

    core = make_core()

    def refuse(_: int) -> None:
        raise DecodeError(-3, ())

    def fail() -> list[StepOutput]:
        with monkeypatch.context() as patch:
            patch.setattr(core._context, "decode", refuse)
            core.submit(request("the", SAMPLED))
            return core.step()

    for _ in range(MAX_FAILED_STEPS - 1):
        assert isinstance(fail()[0].error, EngineError)
    assert text_of(run(core, request("the", SAMPLED))["a"])
    for _ in range(MAX_FAILED_STEPS - 1):
        assert isinstance(fail()[0].error, EngineError)
    with pytest.raises(DecodeError):
        fail()


def test_a_memory_that_cannot_keep_a_part_is_filled_again(
    core: LlamaCppCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = replace(GREEDY, logprobs=2)
    cold = run(core, request("the quick brown", sampling))["a"]
    keep = core._context.keep
    monkeypatch.setattr(core._context, "keep", lambda slot, length: keep(slot, 0))
    events = run(core, request("the quick brown", sampling))["a"]
    assert usage(events).cached_tokens == 0
    assert_same_tokens(logprobs(cold), logprobs(events))


def test_closing_ends_everything_and_may_be_repeated(core: LlamaCppCore) -> None:
    core.submit(request("the", SAMPLED))
    core.step()
    core.close()
    core.close()
    core.cancel("a")
    assert not core.has_work()
    assert core.step() == []
    with pytest.raises(EngineUnavailable):
        core.submit(request("the"))
    with pytest.raises(EngineUnavailable):
        core.tokenize(prompt("the"))


def test_a_thousand_requests_leave_nothing_behind(make_core: MakeCore) -> None:
    core = make_core(n_slots=4, max_queue=8)
    rng = random.Random(0)
    waiting = [str(i) for i in range(1000)]
    alive: set[str] = set()
    while waiting or core.has_work():
        while waiting and rng.random() < 0.7:
            sampling = replace(SAMPLED, max_tokens=rng.randint(1, 4), n=rng.randint(1, 2))
            try:
                core.submit(request("the quick", sampling, waiting[-1]))
            except EngineOverloaded:
                break
            alive.add(waiting.pop())
        for output in core.step():
            assert output.request_id in alive
            if not isinstance(output.events[-1], TextDelta | Finish):
                alive.discard(output.request_id)
        if alive and rng.random() < 0.2:
            victim = sorted(alive)[0]
            core.cancel(victim)
            alive.discard(victim)
    assert not alive
    assert not core._requests
    assert not core._choices
