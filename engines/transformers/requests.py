"""The requests in flight, and what each of their choices holds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from engines.decoding.choice import Choice
from engines.transformers.batch import Prefilled, Row
from engines.transformers.prefill import Prefill
from engines.transformers.sampling import TokenSampler
from engines.types import Usage


@dataclass(eq=False, slots=True)
class RunningChoice:
    """One choice. `row` is its place in the batch, once it has one."""

    request: RunningRequest
    sampler: TokenSampler
    choice: Choice
    row: Row | None = None


@dataclass(eq=False, slots=True)
class RunningRequest:
    """A request and its choices. `n_top` is how many likeliest tokens it wants; None for none.

    Its prompt is computed once: `prefill` until that is done, then `prefilled` until the last of
    the `waiting` choices has joined the batch.
    """

    request_id: str
    prompt: tuple[int, ...]
    n_top: int | None
    choices: list[RunningChoice] = field(default_factory=list)
    waiting: deque[RunningChoice] = field(default_factory=deque)
    prefill: Prefill | None = None
    prefilled: Prefilled | None = None
    n_ended: int = 0

    def usage(self) -> Usage:
        """Return the counts once all choices have ended."""
        return Usage(
            prompt_tokens=len(self.prompt),
            completion_tokens=sum(running.choice.n_generated for running in self.choices),
        )
