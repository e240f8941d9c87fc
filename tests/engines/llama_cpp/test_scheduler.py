from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import EngineOverloaded
from engines.llama_cpp.scheduler import Placement, Scheduler, Sequence, Slot, Span

CONTEXT = 24


def make(
    n_slots: int = 2, n_batch: int = 12, chunk: int = 8, queue: int = 100, min_copied: int = 0
) -> Scheduler:
    return Scheduler(
        n_slots=n_slots,
        context_length=CONTEXT,
        n_batch=n_batch,
        prefill_chunk=chunk,
        max_queue=queue,
        min_copied=min_copied,
    )


def sequence(tokens: list[int], request_id: str = "a", leader: Sequence | None = None) -> Sequence:
    return Sequence(request_id, np.array(tokens, np.int32), leader)


def choices(tokens: list[int], n: int, request_id: str) -> list[Sequence]:
    first = sequence(tokens, request_id)
    return [first, *(sequence(tokens, request_id, first) for _ in range(n - 1))]


def admissions(scheduler: Scheduler) -> Iterator[Placement]:
    return iter(scheduler.admit, None)


def step(scheduler: Scheduler) -> list[Span]:
    list(admissions(scheduler))
    spans = scheduler.plan()
    scheduler.advance(spans)
    return spans


def prefill(scheduler: Scheduler) -> list[Span]:
    """Step until something has an output."""
    spans = step(scheduler)
    while not any(span.has_output for span in spans):
        spans = step(scheduler)
    return spans


@dataclass
class Model:
    """A memory that notes what it is told, and refuses what llama.cpp would refuse."""

    scheduler: Scheduler
    can_cut: bool = True
    memory: dict[int, list[int]] = field(default_factory=dict)
    computed: dict[Sequence, list[int]] = field(default_factory=dict)

    def place(self, placement: Placement) -> None:
        held = self.memory.get(placement.source.id, [])
        assert placement.length <= len(held)
        kept = held[: placement.length]
        if not self.can_cut and len(held) != placement.length:
            kept = []
        self.memory[placement.slot.id] = kept
        if len(kept) != placement.length:
            self.scheduler.correct(placement, len(kept))
        running = placement.slot.sequence
        assert running is not None
        self.computed[running] = list(kept)

    def decode(self, spans: list[Span]) -> None:
        for span in spans:
            memory = self.memory[span.slot.id]
            assert len(memory) == span.start
            tokens = span.slot.tokens[span.start : span.stop].tolist()
            memory += tokens
            self.computed[span.sequence] += tokens


def test_decode_rows_come_first_then_prompts_in_order() -> None:
    scheduler = make(n_slots=3, chunk=4)
    first = sequence([1], "a")
    scheduler.submit([first])
    step(scheduler)
    scheduler.append(first, 9)
    scheduler.submit([sequence([1, 2, 3, 4, 5, 6, 7], "b")])
    scheduler.submit([sequence([7, 8, 9], "c")])
    spans = step(scheduler)
    assert [(s.sequence.request_id, s.start, s.stop) for s in spans] == [("a", 1, 2), ("b", 0, 4)]
    scheduler.append(first, 9)
    spans = step(scheduler)
    assert [(s.sequence.request_id, s.stop) for s in spans] == [("a", 3), ("b", 6), ("c", 2)]


def test_only_the_last_token_of_a_prompt_has_an_output_and_goes_by_itself() -> None:
    scheduler = make(chunk=4)
    scheduler.submit([sequence([1, 2, 3, 4, 5, 6])])
    spans = [span for _ in range(3) for span in step(scheduler)]
    assert [(s.start, s.stop, s.has_output) for s in spans] == [
        (0, 4, False),
        (4, 5, False),
        (5, 6, True),
    ]


def test_a_slot_keeps_what_it_computed_for_the_next_prompt() -> None:
    scheduler = make()
    first = sequence([1, 2, 3])
    scheduler.submit([first])
    prefill(scheduler)
    scheduler.append(first, 4)
    prefill(scheduler)
    scheduler.release(first)
    second = sequence([1, 2, 3, 4, 5])
    scheduler.submit([second])
    (span,) = prefill(scheduler)
    assert (span.start, span.stop, second.reused) == (4, 5, 4)


def test_the_last_prompt_token_is_always_decoded() -> None:
    scheduler = make()
    for _ in range(2):
        same = sequence([1, 2, 3])
        scheduler.submit([same])
        (span,) = prefill(scheduler)
        scheduler.release(same)
    assert (span.start, span.stop, span.has_output) == (2, 3, True)


def test_a_token_that_was_not_decoded_is_not_reused() -> None:
    scheduler = make()
    first = sequence([1, 2, 3])
    scheduler.submit([first])
    prefill(scheduler)
    scheduler.append(first, 4)
    scheduler.release(first)
    second = sequence([1, 2, 3, 4, 5])
    scheduler.submit([second])
    prefill(scheduler)
    assert second.reused == 3


def test_the_least_recently_used_slot_is_given_up() -> None:
    scheduler = make(n_slots=2)
    for tokens in ([1, 1], [2, 2]):
        each = sequence(tokens)
        scheduler.submit([each])
        prefill(scheduler)
        scheduler.release(each)
    third = sequence([3, 3])
    scheduler.submit([third])
    prefill(scheduler)
    assert third.slot is scheduler.slots[0]


def test_choices_wait_for_the_prompt_they_share_and_copy_it() -> None:
    scheduler = make(n_slots=3, chunk=4)
    first, second, third = choices([1, 2, 3, 4, 5, 6], 3, "a")
    scheduler.submit([first, second, third])
    assert len(list(admissions(scheduler))) == 1
    scheduler.advance(scheduler.plan())
    assert scheduler.admit() is None
    scheduler.advance(scheduler.plan())
    assert first.slot is not None
    assert first.slot.cached == 5
    placements = list(admissions(scheduler))
    assert [(p.source, p.length) for p in placements] == [(first.slot, 5), (first.slot, 5)]
    assert len({first.slot, second.slot, third.slot}) == 3


def test_a_short_prompt_is_computed_again_rather_than_copied() -> None:
    scheduler = make(n_slots=2, min_copied=32)
    first, second = choices([1, 2, 3], 2, "a")
    scheduler.submit([first, second])
    step(scheduler)
    (placement,) = admissions(scheduler)
    assert placement.source is placement.slot is second.slot
    assert placement.length == 0


def test_a_full_queue_refuses() -> None:
    scheduler = make(n_slots=1, queue=1)
    scheduler.submit([sequence([1], "a")])
    scheduler.submit([sequence([1], "b")])
    with pytest.raises(EngineOverloaded, match="1 slots"):
        scheduler.submit([sequence([1], "c")])
    scheduler.admit()
    with pytest.raises(EngineOverloaded):
        scheduler.check_room()


def test_releasing_twice_or_what_never_ran_does_nothing() -> None:
    scheduler = make()
    each = sequence([1])
    scheduler.release(each)
    scheduler.submit([each])
    scheduler.release(each)
    scheduler.release(each)
    assert not scheduler.has_work()


def test_what_the_memory_lost_is_not_reused() -> None:
    scheduler = make()
    first = sequence([1, 2, 3])
    scheduler.submit([first])
    prefill(scheduler)
    scheduler.release(first, forget=True)
    second = sequence([1, 2, 3])
    scheduler.submit([second])
    prefill(scheduler)
    assert second.reused == 0


def test_a_batch_must_hold_more_than_the_slots() -> None:
    with pytest.raises(ValueError, match="besides"):
        make(n_slots=4, n_batch=4)


def test_shared_tokens_stop_at_the_first_difference() -> None:
    slot = Slot(0, np.array([1, 2, 3, 4, 0], np.int32), length=4, cached=4)
    assert slot.shared_with(np.array([1, 2, 9, 4], np.int32)) == 2
    assert slot.shared_with(np.array([1, 2, 3, 4, 5, 6], np.int32)) == 4
    assert slot.shared_with(np.array([1], np.int32)) == 0


@dataclass
class Job:
    prompt: list[int]
    n: int
    n_tokens: int
    submit_at: int
    cancel_at: int | None


jobs = st.builds(
    Job,
    prompt=st.lists(st.integers(0, 1), min_size=1, max_size=CONTEXT - 5),
    n=st.integers(1, 3),
    n_tokens=st.integers(1, 5),
    submit_at=st.integers(0, 10),
    cancel_at=st.none() | st.integers(0, 20),
)


@settings(max_examples=200)
@given(
    st.lists(jobs, max_size=8),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 6),
    st.sampled_from([0, 4, 100]),
    st.booleans(),
)
def test_everything_submitted_ends_and_is_computed_once_in_order(
    plans: list[Job], n_slots: int, chunk: int, spare: int, min_copied: int, can_cut: bool
) -> None:
    scheduler = make(n_slots, n_slots + spare, chunk, min_copied=min_copied)
    model = Model(scheduler, can_cut)
    running: dict[Sequence, int] = {}
    generated: dict[Sequence, list[int]] = {}
    admitted: list[str] = []
    groups: dict[str, list[Sequence]] = {}
    for clock in range(600):
        for number, job in enumerate(plans):
            name = str(number)
            if job.submit_at == clock:
                groups[name] = choices(job.prompt, job.n, name)
                scheduler.submit(groups[name])
                running.update(dict.fromkeys(groups[name], job.n_tokens))
                generated.update({each: [] for each in groups[name]})
            if job.cancel_at == clock and name in groups:
                for each in groups[name]:
                    scheduler.release(each)
                    running.pop(each, None)
        for placement in admissions(scheduler):
            model.place(placement)
            assert placement.slot.sequence is not None
            admitted.append(placement.slot.sequence.request_id)
        spans = scheduler.plan()
        assert sum(span.stop - span.start for span in spans) <= scheduler.n_batch
        prefilled = sum(s.stop - s.start for s in spans if s.slot.length - s.slot.cached > 1)
        assert prefilled <= chunk
        assert bool(spans) == scheduler.has_work()
        ready = {s for s, slot in scheduler._running.items() if slot.length - slot.cached == 1}
        assert ready <= {span.sequence for span in spans if span.has_output}
        assert len({span.slot.id for span in spans}) == len(spans)
        model.decode(spans)
        scheduler.advance(spans)
        for span in spans:
            if not span.has_output:
                continue
            each = span.sequence
            known = [*each.prompt.tolist(), *generated[each]]
            assert model.computed[each] == known
            running[each] -= 1
            if running[each] == 0:
                del running[each]
                scheduler.release(each)
            else:
                generated[each].append(1)
                scheduler.append(each, 1)
        if clock > 20 and not scheduler.has_work():
            break
    assert not running
    assert not scheduler.has_work()
    assert scheduler.n_waiting == scheduler.n_running == 0
    order = list(dict.fromkeys(admitted))
    submitted = sorted(groups, key=lambda name: (plans[int(name)].submit_at, int(name)))
    assert order == [name for name in submitted if name in order]
