"""Who runs next: the waiting queue, the slots, and what each step decodes. Pure policy.

Sequences are placed in slots by priority, then in the order they came (`slots` says what these
are). One whose prompt begins as another's does takes over what that one computed: by going on in
its slot if it is idle, else by a copy. If it is still being computed, the sequence *follows*: it
holds its slot and waits for that part instead of computing it again.

Each step takes the running sequences' newest tokens first, then prompt tokens in the order of
admission, never more than a budget: a long prompt neither stalls the answers that run beside it
nor delays a cancellation by more than one step.

The last token of a prompt is always decoded by itself, as the generated ones are, because the
kernels for many rows round differently from those for one. So the first token of an answer does
not depend on how much of its prompt was in memory, and the choices of a request, which share
all but that token, are what they would be one by one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

import numpy as np

from engines.errors import EngineOverloaded
from engines.llama_cpp.slots import Prefix, Sequence, Sharing, Slot


@dataclass(frozen=True, slots=True)
class Placement:
    """An order to the memory: `slot` must hold the first `length` tokens of `source`, no more.

    `source` may be the slot itself. `evicted` slots are to be emptied before. A memory that can
    keep fewer tokens reports it with `Scheduler.correct`.
    """

    slot: Slot
    source: Slot
    length: int
    evicted: tuple[Slot, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [start, stop) of a slot to decode in this step.

    The logits of the last `n_outputs` of them are wanted. For a sequence that generates these
    are its newest token and those drafted behind it; for a prompt all or none.
    """

    slot: Slot
    sequence: Sequence
    start: int
    stop: int
    n_outputs: int

    @property
    def n_tokens(self) -> int:
        """Rows that it takes of the batch."""
        return self.stop - self.start

    @property
    def is_prompt(self) -> bool:
        """Tell whether more of the prompt is to be computed before anything is generated."""
        return self.stop < len(self.sequence.prompt)


@dataclass(frozen=True, slots=True)
class Following:
    """A sequence waits for a prefix that `leader` is computing."""

    leader: Sequence
    prefix: Prefix

    @property
    def is_over(self) -> bool:
        """Tell whether the leader has come so far, or has left."""
        return self.leader.slot is not self.prefix.slot or self.prefix.is_computed


@dataclass(eq=False, slots=True)
class Scheduler:
    """Admits sequences and composes steps. Lengths and sizes are in tokens.

    A step holds at most `n_batch` tokens, `prefill_chunk` of prompts, and `prompt_outputs` of
    prompts whose logits are wanted. Running sequences together may grow to `n_cells` (0: each
    slot has `context_length` of its own); what idle slots hold is given up for that, least
    recently used first. `max_queue` is how many requests may wait beyond those the free slots
    will take at once.
    """

    n_slots: int
    context_length: int
    n_batch: int
    prefill_chunk: int
    max_queue: int
    n_cells: int = 0
    prompt_outputs: int = 32
    sharing: Sharing = field(default_factory=Sharing)
    slots: tuple[Slot, ...] = field(init=False)
    _waiting: list[Sequence] = field(init=False, default_factory=list)
    _running: dict[Sequence, Slot] = field(init=False, default_factory=dict)
    _following: dict[Sequence, Following] = field(init=False, default_factory=dict)
    _clock: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.n_batch <= self.n_slots or self.prefill_chunk < 1:
            raise ValueError("a step must hold one token a slot and one of a prompt besides")
        self.n_cells = self.n_cells or self.n_slots * self.context_length
        if self.n_cells < self.context_length:
            raise ValueError("the memory must hold one sequence of full length")
        self.slots = tuple(
            Slot(i, np.zeros(self.context_length, np.int32)) for i in range(self.n_slots)
        )

    @property
    def n_waiting(self) -> int:
        """Sequences not yet in a slot."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Sequences in a slot."""
        return len(self._running)

    def has_work(self) -> bool:
        """Tell whether a step would advance anything."""
        return bool(self._waiting or self._running)

    def generating(self) -> list[Sequence]:
        """Return the running sequences whose prompt is computed, in the order of admission."""
        return [s for s, slot in self._running.items() if slot.length - slot.cached == 1]

    def check_room(self) -> None:
        """Raise `EngineOverloaded` unless one more request may wait."""
        waiting = len({sequence.request_id for sequence in self._waiting})
        if waiting >= self.max_queue + self.n_slots - len(self._running):
            raise EngineOverloaded(
                f"all {self.n_slots} slots are busy and {waiting} requests wait; try again later"
            )

    def submit(self, sequences: Many[Sequence]) -> None:
        """Queue the choices of one request. See `check_room`."""
        self.check_room()
        for sequence in sequences:
            self._clock += 1
            sequence.number = self._clock
            sequence.max_length = sequence.max_length or self.context_length
            insort(self._waiting, sequence, key=lambda each: (each.priority, each.number))

    def admit(self) -> Placement | None:
        """Place the next sequence, or let one that follows catch up; None when all must wait.

        Call it until None, and have the memory follow each placement before the next: what one
        slot holds decides what another can copy from it.
        """
        for sequence, following in list(self._following.items()):
            if following.is_over and (placement := self._catch_up(sequence)):
                return placement
        if not self._waiting or len(self._running) == self.n_slots:
            return None
        if self._reserved() + self._waiting[0].max_length > self.n_cells:
            return None
        return self._place(self._waiting.pop(0))

    def correct(self, placement: Placement, cached: int) -> None:
        """Note that the memory could keep only `cached` tokens of a placement."""
        self._hold(placement.slot, cached)

    def draft(self, sequence: Sequence, tokens: Many[int]) -> None:
        """Guess the tokens behind the newest of a generating sequence, to be decoded with it."""
        slot = self._running[sequence]
        tokens = tokens[: sequence.max_length - slot.length]
        slot.tokens[slot.length : slot.length + len(tokens)] = tokens
        slot.n_drafted = len(tokens)

    def plan(self, budget: int | None = None) -> list[Span]:
        """Compose the next step: the newest tokens and their drafts, then prompt tokens.

        At most `budget` prompt tokens; None and too many are `prefill_chunk`.
        """
        spans = [self._newest(sequence) for sequence in self.generating()]
        room = self.n_batch - sum(span.n_tokens for span in spans)
        budget = min(self.prefill_chunk if budget is None else budget, self.prefill_chunk, room)
        outputs = self.prompt_outputs
        for sequence, slot in self._running.items():
            if slot.length - slot.cached == 1 or sequence in self._following:
                continue
            size = min(slot.length - 1 - slot.cached, budget)
            if sequence.needs_logits:
                size = min(size, outputs)
                outputs -= size
            if size > 0:
                budget -= size
                start, n_outputs = slot.cached, size if sequence.needs_logits else 0
                spans.append(Span(slot, sequence, start, start + size, n_outputs))
        return spans

    def advance(self, spans: Many[Span]) -> None:
        """Note that the spans of a plan are computed. Drafts count once they are confirmed."""
        for span in spans:
            span.slot.cached = min(span.stop, span.slot.length)

    def append(self, sequence: Sequence, token: int) -> bool:
        """Add a generated token; tell whether it was drafted.

        One that was is computed already, and the step has logits for what comes next. Else the
        next step decodes it, and all that was drafted behind is void.
        """
        slot = self._running[sequence]
        is_drafted = slot.n_drafted > 0 and int(slot.tokens[slot.length]) == token
        slot.tokens[slot.length] = token
        slot.length += 1
        if is_drafted:
            slot.cached += 1
            slot.n_drafted -= 1
        else:
            slot.n_drafted = 0
        return is_drafted

    def release(self, sequence: Sequence, *, forget: bool = False) -> None:
        """End a sequence, waiting or running; ended ones are ignored.

        `forget` drops what its slot computed, after the memory lost it.
        """
        self._following.pop(sequence, None)
        slot = self._running.pop(sequence, None)
        if slot is None:
            if sequence in self._waiting:
                self._waiting.remove(sequence)
            return
        if forget:
            slot.cached = 0
        self._clock += 1
        slot.length, slot.n_drafted, slot.last_used = slot.cached, 0, self._clock
        slot.sequence = sequence.slot = None

    def _newest(self, sequence: Sequence) -> Span:
        slot = self._running[sequence]
        n_outputs = 1 + slot.n_drafted
        return Span(slot, sequence, slot.cached, slot.cached + n_outputs, n_outputs)

    def _reserved(self) -> int:
        """Return the tokens to which all running sequences may grow."""
        return sum(sequence.max_length for sequence in self._running)

    def _place(self, sequence: Sequence) -> Placement:
        """Put a sequence into an idle slot, with as much of its prompt as can be had at once."""
        idle = sorted((s for s in self.slots if s.sequence is None), key=lambda s: s.last_used)
        slot, source, length = idle[0], idle[0], 0
        if not sequence.needs_logits:
            slot, source, length = self._choose(sequence, idle)
        leader = source.sequence
        slot.sequence, sequence.slot = sequence, slot
        slot.tokens[: len(sequence.prompt)] = sequence.prompt
        slot.length = len(sequence.prompt)
        self._running[sequence] = slot
        prefix = Prefix(source, length)
        if leader is not None and not prefix.is_computed:
            self._following[sequence] = Following(leader, prefix)
            source, length = slot, 0
        evicted = self._evict(source)
        if source in evicted:
            source, length = slot, 0
        self._hold(slot, length)
        return Placement(slot, source, length, evicted)

    def _choose(self, sequence: Sequence, idle: Many[Slot]) -> tuple[Slot, Slot, int]:
        """Return the slot for a sequence, and the slot and length of the prefix it begins with.

        It goes on in an idle slot if that mostly holds its prefix, as the slot of the last turn
        of a chat does. A slot that holds much else is rather copied from.
        """
        prompt, oldest = sequence.prompt, idle[0]
        own = self.sharing.best(idle, prompt) or Prefix(oldest, 0)
        if own.slot is not oldest and 2 * own.length < own.slot.length:
            held = self.sharing.offered(oldest, prompt)
            is_copied = self.sharing.is_worth_copying(own, held)
            choice = (oldest, own.slot, own.length) if is_copied else (oldest, oldest, held)
        else:
            choice = own.slot, own.slot, own.length
        live = self.sharing.best(self._leaders(sequence), prompt)
        if live is not None and self.sharing.is_worth_copying(live, choice[2]):
            choice = oldest, live.slot, live.length
        return choice

    def _leaders(self, sequence: Sequence) -> list[Slot]:
        """Return the slots it may wait for: those of sequences placed before it.

        Were it any, two could wait for each other.
        """
        leaders = []
        for running, slot in self._running.items():
            if running is sequence:
                break
            leaders.append(slot)
        return leaders

    def _catch_up(self, sequence: Sequence) -> Placement | None:
        """Give a sequence the prefix it waited for, or the best there is if its leader left.

        None if it has to wait for another, or shall compute the prompt itself.
        """
        del self._following[sequence]
        slot = self._running[sequence]
        idle = [each for each in self.slots if each.sequence is None]
        best = self.sharing.best([*idle, *self._leaders(sequence)], sequence.prompt)
        if best is None or not self.sharing.is_worth_copying(best, slot.cached):
            return None
        if not best.is_computed and best.slot.sequence is not None:
            self._following[sequence] = Following(best.slot.sequence, best)
            return None
        self._hold(slot, best.length)
        return Placement(slot, best.slot, best.length)

    def _hold(self, slot: Slot, cached: int) -> None:
        slot.cached = cached
        if slot.sequence is not None:
            slot.sequence.reused = cached

    def _evict(self, source: Slot) -> tuple[Slot, ...]:
        """Empty idle slots until there is room for all that runs; `source` last."""
        idle = [each for each in self.slots if each.sequence is None]
        idle.sort(key=lambda each: (each is source, each.last_used))
        over = self._reserved() + sum(each.cached for each in idle) - self.n_cells
        evicted = []
        for each in idle:
            if over <= 0:
                break
            over -= each.cached
            each.cached = each.length = 0
            evicted.append(each)
        return tuple(evicted)
