from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import EngineOverloaded
from engines.llama_cpp.scheduler import Placement, Scheduler, Span
from engines.llama_cpp.slots import Sequence, Sharing

CONTEXT = 24


def make(
    n_slots: int = 2,
    n_batch: int = 12,
    chunk: int = 8,
    min_copied: int = 1,
    can_cut: bool = True,
    **options: Any,
) -> Scheduler:
    values = {"max_queue": 100, "prompt_outputs": 2} | options
    return Scheduler(
        n_slots=n_slots,
        context_length=CONTEXT,
        n_batch=n_batch,
        prefill_chunk=chunk,
        sharing=Sharing(min_copied, can_cut),
        **values,
    )


def sequence(tokens: list[int], request_id: str = "a", **fields: Any) -> Sequence:
    return Sequence(request_id, np.array(tokens, np.int32), **fields)


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
    while not any(span.n_outputs for span in spans):
        spans = step(scheduler)
    return spans


def use(scheduler: Scheduler, tokens: list[int]) -> Sequence:
    """Run a prompt and leave it in its slot."""
    each = sequence(tokens)
    scheduler.submit([each])
    prefill(scheduler)
    scheduler.release(each)
    return each


def test_decode_rows_come_first_then_prompts_in_order() -> None:
    scheduler = make(n_slots=3, chunk=4)
    first = sequence([1], "a")
    scheduler.submit([first])
    step(scheduler)
    scheduler.append(first, 9)
    scheduler.submit([sequence([5, 2, 3, 4, 5, 6, 7], "b")])
    scheduler.submit([sequence([7, 8, 9], "c")])
    spans = step(scheduler)
    assert [(s.sequence.request_id, s.start, s.stop) for s in spans] == [("a", 1, 2), ("b", 0, 4)]
    scheduler.append(first, 9)
    spans = step(scheduler)
    assert [(s.sequence.request_id, s.stop) for s in spans] == [("a", 3), ("b", 6), ("c", 2)]


def test_a_budget_bounds_the_prompt_tokens_of_a_step() -> None:
    scheduler = make(chunk=8)
    scheduler.submit([sequence([1] * 12)])
    scheduler.admit()
    assert [span.n_tokens for span in scheduler.plan(3)] == [3]
    assert [span.n_tokens for span in scheduler.plan(99)] == [8]


def test_only_the_last_token_of_a_prompt_has_an_output_and_goes_by_itself() -> None:
    scheduler = make(chunk=4)
    scheduler.submit([sequence([1, 2, 3, 4, 5, 6])])
    spans = [span for _ in range(3) for span in step(scheduler)]
    assert [(s.start, s.stop, s.n_outputs) for s in spans] == [(0, 4, 0), (4, 5, 0), (5, 6, 1)]


def test_a_prompt_whose_logits_are_wanted_has_outputs_for_all_few_at_a_time() -> None:
    scheduler = make(chunk=4)
    use(scheduler, [1, 2, 3, 4, 5, 6])
    wanted = sequence([1, 2, 3, 4, 5, 6], needs_logits=True)
    scheduler.submit([wanted])
    spans = [span for _ in range(4) for span in step(scheduler)]
    assert [(s.start, s.stop, s.n_outputs) for s in spans] == [
        (0, 2, 2),
        (2, 4, 2),
        (4, 5, 1),
        (5, 6, 1),
    ]
    assert wanted.reused == 0


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
    assert (span.start, span.stop, span.n_outputs) == (2, 3, 1)


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
    use(scheduler, [1, 1])
    use(scheduler, [2, 2])
    third = sequence([3, 3])
    scheduler.submit([third])
    prefill(scheduler)
    assert third.slot is scheduler.slots[0]


def test_a_slot_that_holds_much_else_is_copied_from_and_kept() -> None:
    scheduler = make(n_slots=2)
    use(scheduler, [1, 2, 3, 4, 5, 6, 7, 8])
    other = sequence([1, 2, 3, 9, 9])
    scheduler.submit([other])
    (placement,) = admissions(scheduler)
    assert (placement.source.id, placement.slot.id, placement.length) == (0, 1, 3)
    assert scheduler.slots[0].cached == 8


def test_a_prefix_of_a_running_sequence_is_copied_at_once() -> None:
    scheduler = make(n_slots=2)
    first = sequence([1, 2, 3, 4, 5])
    scheduler.submit([first])
    prefill(scheduler)
    second = sequence([1, 2, 3, 9, 9])
    scheduler.submit([second])
    (placement,) = admissions(scheduler)
    assert (placement.source, placement.length, second.reused) == (first.slot, 3, 3)


def test_choices_wait_for_the_prompt_they_share_and_copy_it() -> None:
    scheduler = make(n_slots=3, chunk=4)
    choices = [sequence([1, 2, 3, 4, 5, 6]) for _ in range(3)]
    scheduler.submit(choices)
    assert [p.length for p in admissions(scheduler)] == [0, 0, 0]
    for _ in range(2):
        (span,) = scheduler.plan()
        assert span.sequence is choices[0]
        scheduler.advance([span])
    placements = list(admissions(scheduler))
    assert [(p.source, p.length) for p in placements] == [(choices[0].slot, 5)] * 2
    assert [each.reused for each in choices] == [0, 5, 5]
    assert len({each.slot for each in choices}) == 3


def test_one_that_follows_holds_nobody_up() -> None:
    scheduler = make(n_slots=3, chunk=4)
    scheduler.submit([sequence([1] * 20, "leader")])
    scheduler.submit([sequence([1] * 20, "follower")])
    scheduler.submit([sequence([2], "other")])
    spans = step(scheduler)
    assert {span.sequence.request_id for span in spans} == {"leader", "other"}


@pytest.mark.parametrize("n_computed", [0, 1, 3])
def test_who_follows_one_that_leaves_takes_what_it_left_or_follows_another(n_computed: int) -> None:
    scheduler = make(n_slots=3, chunk=4)
    first, second, third = (sequence([1] * 20, name) for name in "abc")
    for each in (first, second, third):
        scheduler.submit([each])
    for _ in range(n_computed):
        step(scheduler)
    scheduler.release(first)
    spans = step(scheduler)
    assert [(s.sequence, s.start) for s in spans] == [(second, 4 * n_computed)]
    while not scheduler.generating():
        step(scheduler)
    list(admissions(scheduler))
    assert second.reused == 4 * n_computed
    assert third.reused == 19


def test_a_short_prefix_is_computed_again_rather_than_copied() -> None:
    scheduler = make(n_slots=2, min_copied=16)
    first, second = sequence([1, 2, 3]), sequence([1, 2, 3])
    scheduler.submit([first, second])
    placements = list(admissions(scheduler))
    assert all(p.source is p.slot and p.length == 0 for p in placements)
    assert len(scheduler.plan()) == 2


def test_a_lower_priority_number_is_placed_first_and_equal_ones_in_order() -> None:
    scheduler = make(n_slots=1)
    order = []
    for name, priority in (("a", 0), ("b", 1), ("c", 0), ("d", -1)):
        scheduler.submit([sequence([1], name, priority=priority)])
    while scheduler.has_work():
        (span,) = step(scheduler)
        order.append(span.sequence.request_id)
        scheduler.release(span.sequence)
    assert order == ["d", "a", "c", "b"]


def test_sequences_wait_for_cells_and_idle_slots_give_theirs() -> None:
    scheduler = make(n_slots=3, n_cells=CONTEXT + 4, n_batch=30, chunk=24)
    use(scheduler, [1] * 10)
    use(scheduler, [2] * 8)
    first, second = sequence([3] * 2, max_length=CONTEXT), sequence([4], max_length=5)
    scheduler.submit([first])
    scheduler.submit([second])
    (placement,) = admissions(scheduler)
    assert [slot.id for slot in placement.evicted] == [0, 1]
    assert [slot.cached for slot in scheduler.slots] == [0, 0, 0]
    assert scheduler.n_waiting == 1
    scheduler.release(first)
    assert len(list(admissions(scheduler))) == 1


def test_drafts_are_decoded_with_the_newest_token_and_count_once_confirmed() -> None:
    scheduler = make()
    each = sequence([1, 2])
    scheduler.submit([each])
    prefill(scheduler)
    assert scheduler.append(each, 3) is False
    scheduler.draft(each, [4, 5, 6])
    (span,) = step(scheduler)
    assert (span.start, span.stop, span.n_outputs) == (2, 6, 4)
    assert scheduler.append(each, 4) is True
    assert scheduler.append(each, 9) is False
    assert each.slot is not None
    assert (each.slot.cached, each.slot.length) == (4, 5)
    assert each.slot.tokens[:5].tolist() == [1, 2, 3, 4, 9]
    (span,) = step(scheduler)
    assert (span.start, span.stop) == (4, 5)


def test_drafts_stay_within_what_a_sequence_may_grow_to() -> None:
    scheduler = make()
    each = sequence([1, 2], max_length=4)
    scheduler.submit([each])
    prefill(scheduler)
    scheduler.append(each, 3)
    scheduler.draft(each, [4, 5, 6])
    (span,) = scheduler.plan()
    assert span.stop == 4


def test_a_full_queue_refuses() -> None:
    scheduler = make(n_slots=1, max_queue=1)
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


def test_a_batch_must_hold_more_than_the_slots_and_the_memory_one_of_them() -> None:
    with pytest.raises(ValueError, match="besides"):
        make(n_slots=4, n_batch=4)
    with pytest.raises(ValueError, match="full length"):
        make(n_cells=CONTEXT - 1)


@dataclass
class Job:
    prompt: list[int]
    n: int
    n_tokens: int
    submit_at: int
    cancel_at: int | None
    priority: int
    needs_logits: bool


jobs = st.builds(
    Job,
    prompt=st.lists(st.integers(0, 1), min_size=1, max_size=CONTEXT - 5),
    n=st.integers(1, 3),
    n_tokens=st.integers(1, 5),
    submit_at=st.integers(0, 10),
    cancel_at=st.none() | st.integers(0, 20),
    priority=st.sampled_from([0, 0, 0, 1, -1]),
    needs_logits=st.sampled_from([False, False, False, True]),
)


@dataclass
class Model:
    """A memory that notes what it is told, and refuses what llama.cpp would refuse.

    The tokens it generates are the parity of what came before.
    """

    scheduler: Scheduler
    can_cut: bool = True
    memory: dict[int, list[int]] = field(default_factory=dict)

    def place(self, placement: Placement) -> None:
        for slot in placement.evicted:
            assert slot.sequence is None
            self.memory[slot.id] = []
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
        assert kept == running.prompt[: len(kept)].tolist()
        assert running.reused == len(kept) < len(running.prompt)

    def decode(self, spans: list[Span]) -> None:
        for span in spans:
            memory = self.memory[span.slot.id]
            assert len(memory) == span.start
            memory += span.slot.tokens[span.start : span.stop].tolist()

    def next_token(self, slot_id: int, length: int) -> int:
        return sum(self.memory[slot_id][:length]) % 2

    def keep(self, slot_id: int, length: int) -> None:
        del self.memory[slot_id][length:]


@dataclass
class Run:
    """All jobs on one scheduler, step by step, with every promise checked."""

    scheduler: Scheduler
    plans: list[Job]
    drafted: int
    can_cut: bool
    left: dict[Sequence, int] = field(default_factory=dict)
    texts: dict[Sequence, list[int]] = field(default_factory=dict)
    groups: dict[int, list[Sequence]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = Model(self.scheduler, self.can_cut)

    def tick(self, clock: int) -> None:
        for number, job in enumerate(self.plans):
            if job.submit_at == clock:
                self.submit(number, job)
            if job.cancel_at == clock and number in self.groups:
                for each in self.groups[number]:
                    self.scheduler.release(each)
                    self.left.pop(each, None)
        waiting = [each.number for each in self.scheduler._waiting if each.priority == 0]
        for placement in admissions(self.scheduler):
            self.model.place(placement)
        # In order of arrival within a priority.
        rest = [each.number for each in self.scheduler._waiting if each.priority == 0]
        assert rest == waiting[len(waiting) - len(rest) :]
        self.step()

    def submit(self, number: int, job: Job) -> None:
        length = min(len(job.prompt) + job.n_tokens, CONTEXT)
        self.groups[number] = [
            sequence(
                job.prompt,
                str(number),
                max_length=length,
                priority=job.priority,
                needs_logits=job.needs_logits,
            )
            for _ in range(job.n)
        ]
        self.scheduler.submit(self.groups[number])
        self.left.update(dict.fromkeys(self.groups[number], job.n_tokens))
        self.texts.update({each: [] for each in self.groups[number]})

    def step(self) -> None:
        scheduler = self.scheduler
        if self.can_cut:
            for each in scheduler.generating():
                scheduler.draft(each, [1] * self.drafted)
        spans = scheduler.plan()
        self.check(spans)
        self.model.decode(spans)
        scheduler.advance(spans)
        for span in spans:
            if span.stop >= span.slot.length:
                self.generate(span)

    def check(self, spans: list[Span]) -> None:
        scheduler = self.scheduler
        assert sum(span.n_tokens for span in spans) <= scheduler.n_batch
        prompts = [s for s in spans if s.slot.length - s.slot.cached > 1]
        assert sum(span.n_tokens for span in prompts) <= scheduler.prefill_chunk
        assert sum(span.n_outputs for span in prompts) <= scheduler.prompt_outputs
        assert bool(spans) == scheduler.has_work()
        assert {s.sequence for s in spans} >= set(scheduler.generating())
        assert len({span.slot.id for span in spans}) == len(spans)
        held = sum(
            len(self.model.memory[s.id])
            for s in scheduler.slots
            if s.sequence is None and s.id in self.model.memory
        )
        assert held + sum(each.max_length for each in scheduler._running) <= scheduler.n_cells

    def generate(self, span: Span) -> None:
        each, slot = span.sequence, span.slot
        for row in range(span.n_outputs):
            token = self.model.next_token(slot.id, span.start + row + 1)
            self.texts[each].append(token)
            self.left[each] -= 1
            if self.left[each] == 0:
                del self.left[each]
                self.scheduler.release(each)
                break
            if not self.scheduler.append(each, token):
                break
        self.model.keep(slot.id, slot.cached)


def alone(prompt: list[int], n_tokens: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(n_tokens):
        tokens.append(sum(tokens) % 2)
    return tokens[len(prompt) :]


@settings(max_examples=300, deadline=None)
@given(
    plans=st.lists(jobs, max_size=8),
    n_slots=st.integers(1, 4),
    chunk=st.integers(1, 9),
    spare=st.integers(1, 6),
    min_copied=st.sampled_from([0, 1, 4, 100]),
    can_cut=st.booleans(),
    spare_cells=st.none() | st.integers(0, 2 * CONTEXT),
    drafted=st.integers(0, 3),
)
def test_every_answer_is_what_it_is_alone_and_nothing_is_left(
    plans: list[Job],
    n_slots: int,
    chunk: int,
    spare: int,
    min_copied: int,
    can_cut: bool,
    spare_cells: int | None,
    drafted: int,
) -> None:
    n_cells = 0 if spare_cells is None else CONTEXT + spare_cells
    n_batch = n_slots * (1 + drafted) + spare
    scheduler = make(n_slots, n_batch, chunk, min_copied, can_cut, n_cells=n_cells)
    run = Run(scheduler, plans, drafted, can_cut)
    for clock in range(600):
        run.tick(clock)
        if clock > 20 and not scheduler.has_work():
            break
    assert not run.left
    assert not scheduler.has_work()
    assert scheduler.n_waiting == scheduler.n_running == 0
    assert not scheduler._following
    for number, group in run.groups.items():
        job = plans[number]
        for each in group:
            expected = alone(job.prompt, job.n_tokens)
            assert run.texts[each] == expected[: len(run.texts[each])]
            assert job.cancel_at is not None or len(run.texts[each]) == job.n_tokens
