"""Who runs next: slots, the waiting queue, and what each step decodes. Pure policy.

A *slot* is one sequence of the model's memory (KV cache). A *sequence* is one choice of one
request; it waits, is placed in a slot in the order it came, and leaves it when it ends. What it
computed stays in the slot until another sequence needs the room, so that a prompt beginning
the same way (the next turn of a chat) is not computed again.

Each step takes the running sequences' newest tokens first, then prompt tokens in the order of
admission, never more than `prefill_chunk` of them: a long prompt neither stalls the answers
that run beside it nor delays a cancellation by more than one chunk.

The last token of a prompt is always decoded by itself, as the generated ones are, because the
kernels for many rows round differently from those for one. So the first token of an answer does
not depend on how much of its prompt was in memory, and the choices of a request, which share
all but that token, are what they would be one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineOverloaded

TokenArray = NDArray[np.int32]


@dataclass(eq=False, slots=True)
class Slot:
    """One sequence of the model's memory, and the tokens that are or will be in it.

    Of `tokens` the first `length` are known and the first `cached` are computed.
    """

    id: int
    tokens: TokenArray
    length: int = 0
    cached: int = 0
    sequence: Sequence | None = None
    last_used: int = 0

    def shared_with(self, prompt: TokenArray) -> int:
        """Return how many leading tokens of `prompt` are computed here; the last never counts."""
        limit = min(self.cached, len(prompt) - 1)
        differs = self.tokens[:limit] != prompt[:limit]
        return int(differs.argmax()) if differs.any() else limit


@dataclass(eq=False, slots=True)
class Sequence:
    """One choice of one request. The choices after the first name it as their `leader`.

    `reused` counts the prompt tokens that were in memory when it was placed.
    """

    request_id: str
    prompt: TokenArray
    leader: Sequence | None = None
    slot: Slot | None = None
    reused: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """An order to the memory: `slot` must hold the first `length` tokens of `source`, no more.

    `source` may be the slot itself. A memory that can keep fewer reports it with
    `Scheduler.correct`.
    """

    slot: Slot
    source: Slot
    length: int


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [start, stop) of a slot to decode in this step.

    `has_output` says that it is one token, the newest known: its logits choose the next.
    """

    slot: Slot
    sequence: Sequence
    start: int
    stop: int
    has_output: bool


@dataclass(eq=False, slots=True)
class Scheduler:
    """Admits sequences first come, first served, and composes steps.

    `context_length` and `n_batch` (tokens a step may hold) bound it; `max_queue` is how many
    requests may wait beyond those the free slots will take at once. `min_copied` is the
    shortest prefix, in tokens, worth copying from one slot to another.
    """

    n_slots: int
    context_length: int
    n_batch: int
    prefill_chunk: int
    max_queue: int
    min_copied: int = 0
    slots: tuple[Slot, ...] = field(init=False)
    _waiting: deque[Sequence] = field(init=False, default_factory=deque)
    _running: dict[Sequence, Slot] = field(init=False, default_factory=dict)
    _clock: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.n_batch <= self.n_slots or self.prefill_chunk < 1:
            raise ValueError("a step must hold one token a slot and one of a prompt besides")
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

    def check_room(self) -> None:
        """Raise `EngineOverloaded` unless one more request may wait."""
        waiting = len({sequence.request_id for sequence in self._waiting})
        if waiting >= self.max_queue + self.n_slots - len(self._running):
            raise EngineOverloaded(
                f"all {self.n_slots} slots are busy and {waiting} requests wait; try again later"
            )

    def submit(self, sequences: Many[Sequence]) -> None:
        """Queue the choices of one request, the leader first. See `check_room`."""
        self.check_room()
        self._waiting.extend(sequences)

    def admit(self) -> Placement | None:
        """Move the next waiting sequence into a free slot; None when it must wait.

        Call it until None, and have the memory follow each placement before the next: what one
        slot holds decides what another can copy from it.
        """
        if not self._waiting or len(self._running) == self.n_slots:
            return None
        if self._is_held(self._waiting[0]):
            return None
        return self._place(self._waiting.popleft())

    def correct(self, placement: Placement, cached: int) -> None:
        """Note that the memory could keep only `cached` tokens of a placement."""
        placement.slot.cached = cached
        if placement.slot.sequence is not None:
            placement.slot.sequence.reused = cached

    def plan(self) -> list[Span]:
        """Compose the next step: one newest token per running sequence, then prompt tokens."""
        spans: list[Span] = []
        prefilling: list[tuple[Sequence, Slot]] = []
        for sequence, slot in self._running.items():
            if slot.length - slot.cached == 1:
                spans.append(Span(slot, sequence, slot.cached, slot.length, True))
            else:
                prefilling.append((sequence, slot))
        budget = min(self.prefill_chunk, self.n_batch - len(spans))
        for sequence, slot in prefilling:
            if budget <= 0:
                break
            stop = min(slot.length - 1, slot.cached + budget)
            budget -= stop - slot.cached
            spans.append(Span(slot, sequence, slot.cached, stop, False))
        return spans

    def advance(self, spans: Many[Span]) -> None:
        """Note that the spans of a plan are computed."""
        for span in spans:
            span.slot.cached = span.stop

    def append(self, sequence: Sequence, token: int) -> None:
        """Add a generated token to a running sequence; the next step decodes it."""
        slot = self._running[sequence]
        slot.tokens[slot.length] = token
        slot.length += 1

    def release(self, sequence: Sequence, *, forget: bool = False) -> None:
        """End a sequence, waiting or running; ended ones are ignored.

        `forget` drops what its slot computed, after the memory lost it.
        """
        slot = self._running.pop(sequence, None)
        if slot is None:
            if sequence in self._waiting:
                self._waiting.remove(sequence)
            return
        if forget:
            slot.cached = 0
        self._clock += 1
        slot.length, slot.last_used = slot.cached, self._clock
        slot.sequence = sequence.slot = None

    def _is_held(self, sequence: Sequence) -> bool:
        """Tell whether a sequence should wait: its leader is computing their common prompt."""
        leader = sequence.leader.slot if sequence.leader is not None else None
        return leader is not None and leader.cached < len(sequence.prompt) - 1

    def _place(self, sequence: Sequence) -> Placement:
        """Put a sequence into the free slot that spares the most work."""
        idle = [slot for slot in self.slots if slot.sequence is None]
        shared = {slot: slot.shared_with(sequence.prompt) for slot in idle}
        slot = max(idle, key=lambda slot: (shared[slot], -slot.last_used))
        source, length = slot, shared[slot]
        leader = sequence.leader.slot if sequence.leader is not None else None
        if leader is not None:
            common = leader.shared_with(sequence.prompt)
            if common >= length + max(self.min_copied, 1):
                slot = min(idle, key=lambda slot: slot.last_used)
                source, length = leader, common
        self._occupy(slot, sequence, length)
        return Placement(slot, source, length)

    def _occupy(self, slot: Slot, sequence: Sequence, cached: int) -> None:
        slot.length = len(sequence.prompt)
        slot.tokens[: slot.length] = sequence.prompt
        slot.cached, slot.sequence = cached, sequence
        sequence.slot, sequence.reused = slot, cached
        self._running[sequence] = slot
