from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import torch

from engines.core import Core
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
    TokensPrompt,
)
from tests.engines.core_driving import (
    GREEDY,
    answer,
    logprobs,
    reasons,
    request,
    run,
    text_of,
    usage,
)

if TYPE_CHECKING:
    from engines.transformers.core import TransformersCore

    MakeCore = Callable[..., TransformersCore]

EOS = 2
SAMPLED = SamplingParams(seed=3, max_tokens=24)
TEXTS = ["the quick", "hello world", "日本語", "some numbers are one two three", "dog", "zz"]


def force(token: int) -> SamplingParams:
    return replace(GREEDY, logit_bias=((token, 1000.0),))


def test_it_is_a_core(core: TransformersCore) -> None:
    as_core: Core = core
    assert as_core.context_length == 512
    assert not as_core.has_work()
    assert list(as_core.step()) == []
    assert core.detail == ("LlamaForCausalLM, 0.1 M parameters, float32, 8 slots of 512 tokens")


@pytest.mark.parametrize("seed", range(3))
def test_streamed_text_is_the_whole_text(core: TransformersCore, seed: int) -> None:
    sampling = replace(SAMPLED, seed=seed, max_tokens=60, logprobs=0, n=2)
    events = run(core, request("日本語 the quick brown", sampling))["a"]
    for index in range(2):
        pieces = [entry.bytes for entry in logprobs(events, index)]
        whole = b"".join(pieces).decode("utf-8", "replace")
        assert text_of(events, index) == whole
        assert "\ufffd" in whole


def test_requests_in_flight_give_what_they_give_alone(core: TransformersCore) -> None:
    sampling = replace(GREEDY, logprobs=2)
    alone = {text: run(core, request(text, sampling))["a"] for text in TEXTS}
    together = run(core, *(request(text, sampling, text) for text in TEXTS))
    for text, events in alone.items():
        assert text_of(events) == text_of(together[text])
        assert usage(events) == usage(together[text])
        for one, other in zip(logprobs(events), logprobs(together[text]), strict=True):
            assert one.bytes == other.bytes
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


@pytest.mark.parametrize("options", [{"prefill_chunk": 3, "n_slots": 2}, {"n_slots": 1}])
def test_other_shapes_give_the_same(make_core: MakeCore, options: dict[str, Any]) -> None:
    events = run(make_core(), *(request(text, SAMPLED, text) for text in TEXTS))
    others = run(make_core(**options), *(request(text, SAMPLED, text) for text in TEXTS))
    for text in TEXTS:
        assert text_of(events[text]) == text_of(others[text])


def test_a_long_prompt_does_not_stall_a_running_answer(make_core: MakeCore) -> None:
    core = make_core(prefill_chunk=16)
    core.submit(request("the quick", replace(GREEDY, max_tokens=100, ignore_eos=True), "short"))
    core.step()
    core.submit(request(TokensPrompt(tuple([9] * 200)), GREEDY, "long"))
    before_long = 0
    while not any(output.request_id == "long" for output in core.step()):
        before_long += 1
    assert before_long >= 200 // 16 - 1
    assert core._requests["short"].choices[0].choice.n_generated >= before_long


@pytest.mark.parametrize("seed", range(3))
def test_a_stop_string_is_never_shown_wherever_it_lies(core: TransformersCore, seed: int) -> None:
    sampling = replace(SAMPLED, seed=seed, max_tokens=40, ignore_eos=True)
    whole = answer(core, "the quick", sampling)
    numbers = random.Random(seed)
    for _ in range(4):
        start = numbers.randrange(1, len(whole) - 8)
        stop = whole[start : start + numbers.randint(1, 8)]
        events = run(core, request("the quick", replace(sampling, stop=(stop, "\ufffe"))))["a"]
        assert text_of(events) == whole[: whole.index(stop)]
        assert reasons(events) == {0: "stop"}


def test_the_end_token_ends_without_text_and_is_counted(core: TransformersCore) -> None:
    events = run(core, request("the quick", force(EOS)))["a"]
    assert events[:-1] == [Finish(0, "stop")]
    assert usage(events).completion_tokens == 1


def test_min_tokens_bars_the_end(core: TransformersCore) -> None:
    events = run(core, request("the quick", replace(force(EOS), min_tokens=5)))["a"]
    assert reasons(events) == {0: "stop"}
    assert usage(events).completion_tokens == 6


def test_ignore_eos_goes_on_to_the_limit(core: TransformersCore) -> None:
    events = run(core, request("the quick", replace(force(EOS), ignore_eos=True)))["a"]
    assert reasons(events) == {0: "length"}
    assert usage(events).completion_tokens == GREEDY.max_tokens
    assert text_of(events) == ""


def test_stop_tokens_of_the_prompt_and_of_the_request_end(core: TransformersCore) -> None:
    token = 77
    name = core._vocabulary.names[token].decode()
    parts = PartsPrompt((Text("0"),), stop_tokens=(name,))
    for text, sampling in (
        (parts, force(token)),
        ("0", replace(force(token), stop_token_ids=(token,))),
        ("0", replace(force(token), stop_token_ids=(token,), ignore_eos=True)),
    ):
        events = run(core, request(text, sampling))["a"]
        assert (text_of(events), reasons(events)) == ("", {0: "stop"})
    ignored = run(core, request(parts, replace(force(token), ignore_eos=True)))["a"]
    assert reasons(ignored) == {0: "length"}


def test_a_seed_repeats_an_answer_and_none_does_not(core: TransformersCore) -> None:
    hot = replace(SAMPLED, temperature=2.0)
    first = answer(core, "the quick", hot)
    company = [request(text, replace(SAMPLED, seed=i), text) for i, text in enumerate(TEXTS[1:])]
    assert text_of(run(core, request("the quick", hot), *company)["a"]) == first
    assert answer(core, "the quick", replace(hot, seed=4)) != first
    unseeded = replace(hot, seed=None)
    assert answer(core, "the quick", unseeded) != answer(core, "the quick", unseeded)


@pytest.mark.parametrize("n_slots", [1, 2, 8])
def test_choices_share_a_prompt_and_have_the_seeds_that_follow(
    make_core: MakeCore, n_slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = make_core(n_slots=n_slots)
    prefills = mock.Mock(wraps=core._runner.prefill)
    monkeypatch.setattr(core._runner, "prefill", prefills)
    text = "the quick brown fox jumps over the lazy dog"
    sampling = replace(SAMPLED, n=3, seed=10, ignore_eos=True)
    events = run(core, request(text, sampling))["a"]
    prefills.assert_called_once()
    assert reasons(events) == dict.fromkeys(range(3), "length")
    for index in range(3):
        alone = replace(sampling, seed=10 + index, n=1)
        assert text_of(events, index) == answer(core, text, alone)
    assert usage(events).completion_tokens == 3 * 24
    assert usage(events).prompt_tokens == len(text) + 1


def test_penalties_and_bias_change_the_answer(core: TransformersCore) -> None:
    def repeats(**penalty: float) -> int:
        sampling = replace(GREEDY, max_tokens=40, logprobs=0, ignore_eos=True, **penalty)  # type: ignore[arg-type]
        tokens = [e.bytes for e in logprobs(run(core, request("the", sampling))["a"])]
        return len(tokens) - len(set(tokens))

    assert repeats(frequency_penalty=1000.0) == 0
    assert repeats(presence_penalty=1000.0) == 0
    assert repeats(repetition_penalty=100.0) < repeats()
    assert answer(core, "the", force(77)) == core._vocabulary.pieces[77].decode() * 24


def test_logprobs_are_the_models_own(core: TransformersCore) -> None:
    plain = logprobs(run(core, request("the", replace(GREEDY, logprobs=5)))["a"])[0]
    bent = replace(force(77), logprobs=5, temperature=2.0, seed=1, frequency_penalty=1.0)
    forced = logprobs(run(core, request("the", bent))["a"])[0]
    for ours, theirs in zip(forced.top, plain.top, strict=True):
        assert ours.bytes == theirs.bytes
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)
    assert forced.bytes == core._vocabulary.pieces[77]
    assert forced.logprob is not None and plain.logprob is not None
    assert forced.logprob < plain.logprob


@pytest.mark.parametrize("n_steps", range(6))
@pytest.mark.parametrize("n", [1, 3])
def test_cancelling_at_any_time_frees_all_and_disturbs_nobody(
    make_core: MakeCore, n_steps: int, n: int
) -> None:
    core = make_core(n_slots=2, prefill_chunk=16)
    alone = answer(core, "hello world")
    core.submit(request("hello world", GREEDY, "other"))
    core.submit(request(TokensPrompt(tuple([9] * 50)), replace(SAMPLED, n=n), "victim"))
    core.submit(request("some numbers", replace(SAMPLED, n=n), "queued"))
    events: list[Event] = []
    for _ in range(n_steps):
        events += [e for o in core.step() if o.request_id == "other" for e in o.events]
    for name in ("victim", "queued", "unknown"):
        core.cancel(name)
    later = run(core)
    assert set(later) <= {"other"}
    assert text_of(events + later["other"]) == alone


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
    assert set(run(core)) == {"a", "b"}
    assert set(run(core, request("the", GREEDY, "c"))) == {"c"}


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


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        (SamplingParams(logit_bias=((259, 1.0),)), "logit_bias"),
        (SamplingParams(stop_token_ids=(-1,)), "stop_token_ids"),
        (SamplingParams(max_tokens=0), "max_tokens"),
        (SamplingParams(repetition_penalty=0.0), "repetition_penalty"),
        (SamplingParams(n=0), "n"),
        (SamplingParams(logprobs=21), "logprobs"),
    ],
)
def test_values_only_the_engine_can_judge(
    core: TransformersCore, sampling: SamplingParams, param: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        core.submit(request("the", sampling))
    assert caught.value.param == param


def test_prompts_it_cannot_run_are_refused(core: TransformersCore) -> None:
    for bad in (
        MessagesPrompt((Message("user", "hi"),)),
        PartsPrompt((), add_bos=False),
        PartsPrompt((Special("<nope>"),)),
        TokensPrompt((1, 259)),
    ):
        with pytest.raises(InvalidRequest):
            core.submit(request(bad))
    assert not core.has_work()


def test_an_unknown_field_is_refused_by_name(core: TransformersCore) -> None:
    text = PartsPrompt((Text("the"),))
    with pytest.raises(UnsupportedParameter, match="guided_regex") as caught:
        core.submit(GenerationRequest("a", text, GREEDY, {"guided_regex": "a+"}))
    assert caught.value.param == "guided_regex"


def test_an_id_in_use_is_refused(core: TransformersCore) -> None:
    core.submit(request("the"))
    with pytest.raises(InvalidRequest, match="in use"):
        core.submit(request("the"))
    assert usage(run(core)["a"])


def test_tokenize_shows_what_a_request_uses(core: TransformersCore) -> None:
    parts = PartsPrompt((Text("the </s>"), Special("</s>"), Text("<s>")))
    ids = core.tokenize(parts)
    assert ids[0] == core._vocabulary.bos
    assert ids.count(EOS) == 1
    assert b"".join(core._vocabulary.pieces[i] for i in ids) == b"the </s><s>"
    assert usage(run(core, request(parts))["a"]).prompt_tokens == len(ids)


def test_a_failed_step_ends_those_in_it_and_the_core_goes_on(
    make_core: MakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = make_core(n_slots=2)
    before = answer(core, "hello")
    core.submit(request("the", SAMPLED, "a"))
    core.submit(request("the", replace(SAMPLED, n=2), "b"))
    core.submit(request("hello", GREEDY, "c"))
    core.step()
    with monkeypatch.context() as patch:
        patch.setattr(core._runner, "decode", _out_of_memory)
        outputs = core.step()
    assert {output.request_id for output in outputs} == {"a", "b"}
    for output in outputs:
        assert type(output.error) is EngineError
        assert "OutOfMemoryError" in str(output.error)
    assert text_of(run(core)["c"]) == before


def test_a_core_that_only_fails_gives_up(
    core: TransformersCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engines.transformers.core import MAX_FAILED_STEPS

    monkeypatch.setattr(core._runner, "prefill", _out_of_memory)
    for _ in range(MAX_FAILED_STEPS - 1):
        core.submit(request("the", SAMPLED))
        assert isinstance(core.step()[0].error, EngineError)
    core.submit(request("the", SAMPLED))
    with pytest.raises(torch.OutOfMemoryError):
        core.step()


def _out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("no room")


def test_numbers_that_are_not_finite_end_their_request_only(
    make_core: MakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = make_core(n_slots=2)
    before = answer(core, "hello")
    core.submit(request("the", SAMPLED, "a"))
    core.submit(request("hello", GREEDY, "b"))
    first = core.step()
    decode = core._runner.decode

    def spoil(*arguments: Any) -> torch.Tensor:
        logits = decode(*arguments)
        logits[0] = torch.nan
        return logits

    with monkeypatch.context() as patch:
        patch.setattr(core._runner, "decode", spoil)
        spoilt = core.step()
    assert "not finite" in str(next(o.error for o in spoilt if o.request_id == "a"))
    events = [e for o in first + spoilt if o.request_id == "b" for e in o.events]
    assert text_of(events + run(core)["b"]) == before
    assert answer(core, "hello") == before


def test_closing_ends_everything_and_may_be_repeated(core: TransformersCore) -> None:
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
        core.tokenize(PartsPrompt((Text("the"),)))


def test_many_requests_leave_nothing_behind(make_core: MakeCore) -> None:
    core = make_core(n_slots=4, max_queue=8)
    numbers = random.Random(0)
    waiting = [str(i) for i in range(300)]
    alive: set[str] = set()
    while waiting or core.has_work():
        while waiting and numbers.random() < 0.7:
            sampling = replace(SAMPLED, max_tokens=numbers.randint(1, 4), n=numbers.randint(1, 2))
            try:
                core.submit(request("the quick", sampling, waiting[-1]))
            except EngineOverloaded:
                break
            alive.add(waiting.pop())
        for output in core.step():
            assert output.request_id in alive
            if not isinstance(output.events[-1], TextDelta | Finish):
                alive.discard(output.request_id)
        if alive and numbers.random() < 0.2:
            victim = sorted(alive)[0]
            core.cancel(victim)
            alive.discard(victim)
    assert not alive
    assert not core._requests
    assert not core._joined
