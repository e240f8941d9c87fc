"""Prefixes shared between requests: the same answers, for less work."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from engines.types import GenerationRequest, SamplingParams, TokensPrompt
from tests.engines.core_driving import GREEDY, finish, logprobs, reasons, request, run, usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from engines.llama_cpp.core import LlamaCppCore

    MakeCore = Callable[..., LlamaCppCore]

PREFIX = tuple(range(20, 120))
TAILS = [(200 + i, 210, 220 + 2 * i) for i in range(6)]
MEASURED = replace(GREEDY, max_tokens=4, logprobs=5)
SHAPES = [{}, {"kv_unified": True}]


def ask(tail: tuple[int, ...], name: str, sampling: SamplingParams = MEASURED) -> GenerationRequest:
    return request(TokensPrompt(PREFIX + tail), sampling, name)


def first_logprobs(core: LlamaCppCore, tail: tuple[int, ...]) -> list[float]:
    events = run(core, ask(tail, "alone"))["alone"]
    return [top.logprob for top in logprobs(events)[0].top]


@pytest.mark.parametrize("options", SHAPES, ids=["buffer a slot", "one buffer"])
def test_a_wave_computes_its_prefix_once_and_answers_as_alone(
    make_core: MakeCore, options: dict[str, Any]
) -> None:
    alone = make_core(n_slots=1, **options)
    expected = [first_logprobs(alone, tail) for tail in TAILS]
    core = make_core(n_slots=8, **options)
    wave = run(core, *(ask(tail, str(i)) for i, tail in enumerate(TAILS)))
    cached = [usage(wave[str(i)]).cached_tokens for i in range(len(TAILS))]
    assert cached == [0, *[len(PREFIX)] * 5]
    for i, values in enumerate(expected):
        got = [top.logprob for top in logprobs(wave[str(i)])[0].top]
        assert got == pytest.approx(values, abs=1e-2)


def test_a_prefix_of_a_running_request_is_shared(make_core: MakeCore) -> None:
    core = make_core(n_slots=2)
    core.submit(ask(TAILS[0], "a", replace(MEASURED, max_tokens=50)))
    for _ in range(5):
        core.step()
    core.submit(ask(TAILS[1], "b"))
    events = finish(core)
    assert usage(events["b"]).cached_tokens == len(PREFIX)


def test_when_the_first_of_a_wave_is_cancelled_the_others_go_on(make_core: MakeCore) -> None:
    core = make_core(n_slots=4, prefill_chunk=16)
    for i, tail in enumerate(TAILS[:3]):
        core.submit(ask(tail, str(i)))
    for _ in range(3):
        core.step()
    core.cancel("0")
    events = finish(core)
    assert usage(events["1"]).cached_tokens == 48
    assert usage(events["2"]).cached_tokens == len(PREFIX)


def test_cached_tokens_are_what_was_not_decoded(
    make_core: MakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = make_core(n_slots=3)
    rows: list[int] = []
    decode = core._context.decode

    def counted(n_rows: int) -> None:
        rows.append(n_rows)
        decode(n_rows)

    monkeypatch.setattr(core._context, "decode", counted)
    requests = [ask(tail, str(i)) for i, tail in enumerate([*TAILS, TAILS[0]])]
    events = run(core, *requests)
    used = [usage(events[each.request_id]) for each in requests]
    computed = sum(u.prompt_tokens - u.cached_tokens for u in used)
    # The last token of an answer is never decoded.
    assert sum(rows) == computed + sum(u.completion_tokens - 1 for u in used)


def test_the_next_turn_goes_on_where_the_last_one_ended(make_core: MakeCore) -> None:
    core = make_core(n_slots=2)
    first = run(core, request(TokensPrompt(PREFIX), replace(GREEDY, max_tokens=6), "a"))["a"]
    spoken = usage(first).completion_tokens
    whole = core._scheduler.slots[0].tokens[: len(PREFIX) + spoken - 1].tolist()
    again = run(core, request(TokensPrompt((*whole, 7, 8)), GREEDY, "b"))["b"]
    assert usage(again).cached_tokens == len(whole)


def test_a_lower_priority_number_overtakes(make_core: MakeCore) -> None:
    core = make_core(n_slots=1)
    for name, priority in (("a", 0), ("late", 5), ("soon", -5)):
        core.submit(replace(request("the quick", GREEDY, name), priority=priority))
    ended = []
    while core.has_work():
        ended += [output.request_id for output in core.step() if reasons(list(output.events))]
    assert ended == ["soon", "a", "late"]


def test_requests_wait_for_cells_of_a_smaller_memory(make_core: MakeCore) -> None:
    core = make_core(n_slots=4, kv_unified=True, n_cells=600)
    sampling = replace(GREEDY, max_tokens=100, ignore_eos=True)
    prompts = [TokensPrompt(tuple(range(i, i + 120))) for i in (5, 40, 80, 140)]
    for i, prompt in enumerate(prompts):
        core.submit(request(prompt, sampling, str(i)))
    core.step()
    assert core._scheduler.n_running == 2
    events = finish(core)
    assert [usage(events[str(i)]).completion_tokens for i in range(4)] == [100] * 4


@pytest.mark.parametrize("options", SHAPES, ids=["buffer a slot", "one buffer"])
def test_guessing_ahead_changes_no_answer(make_core: MakeCore, options: dict[str, Any]) -> None:
    repeating = TokensPrompt((*range(30, 60), *range(30, 58)))
    sampling = [
        replace(GREEDY, max_tokens=60, logprobs=2, ignore_eos=True),
        SamplingParams(seed=1, temperature=0.4, max_tokens=60, logprobs=2, ignore_eos=True),
        replace(GREEDY, max_tokens=60, logprobs=2, ignore_eos=True, frequency_penalty=0.5),
    ]
    plain = make_core(**options)
    guessing = make_core(speculation="prompt_lookup", **options)
    n_steps = 0
    for params in sampling:
        expected = logprobs(run(plain, request(repeating, params))["a"])
        guessing.submit(request(repeating, params))
        events = []
        while guessing.has_work():
            events += [event for output in guessing.step() for event in output.events]
            n_steps += 1
        got = logprobs(events)
        assert len(got) == len(expected) == 60
        for one, other in zip(got, expected, strict=True):
            if one.bytes != other.bytes:
                # Two were as good as equally likely: batches of other shapes round differently.
                assert one.top[0].logprob - one.top[1].logprob < 0.05
                break
    assert n_steps < 3 * 60


@pytest.mark.parametrize("n_top", [None, 2])
@pytest.mark.parametrize("max_tokens", [0, 3])
def test_an_echoed_prompt_comes_first_with_its_logprobs(
    core: LlamaCppCore, n_top: int | None, max_tokens: int
) -> None:
    sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, echo=True, logprobs=n_top)
    prompt = TokensPrompt(PREFIX)
    events = run(core, request(prompt, replace(sampling, n=2)))["a"]
    pieces = [core._model.vocabulary.pieces[token] for token in PREFIX]
    for index in range(2):
        texts = [e.text for e in events if getattr(e, "text", "") and e.index == index]  # type: ignore[union-attr]
        assert "".join(texts).startswith(b"".join(pieces).decode("utf-8", "replace"))
        entries = logprobs(events, index)
        if n_top is not None:
            assert [entry.bytes for entry in entries[: len(PREFIX)]] == pieces
            assert entries[0].logprob is None
            assert all(entry.logprob is not None for entry in entries[1:])
    assert usage(events).completion_tokens == 2 * max_tokens
    assert reasons(events) == {0: "length", 1: "length"}


def test_logprobs_of_a_prompt_are_those_of_generating_it(core: LlamaCppCore) -> None:
    generated = run(core, request(TokensPrompt(PREFIX), replace(GREEDY, logprobs=3)))["a"]
    answer = logprobs(generated)
    slot = next(slot for slot in core._scheduler.slots if slot.length > len(PREFIX))
    whole = tuple(slot.tokens[: slot.length].tolist())
    echo = SamplingParams(temperature=0.0, max_tokens=0, echo=True, logprobs=3)
    echoed = logprobs(run(core, request(TokensPrompt(whole), echo))["a"])
    for ours, theirs in zip(echoed[len(PREFIX) :], answer, strict=False):
        assert ours.bytes == theirs.bytes
        assert ours.logprob == pytest.approx(theirs.logprob, abs=0.02)
