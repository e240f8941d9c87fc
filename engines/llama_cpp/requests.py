"""The requests in flight, and what each of their choices holds."""

from __future__ import annotations

from dataclasses import dataclass

from engines.decoding.choice import Choice
from engines.llama_cpp.sampling import TokenSampler
from engines.llama_cpp.scheduler import Sequence
from engines.types import Usage


@dataclass(eq=False, slots=True)
class RunningChoice:
    """One choice with all that it holds."""

    request: RunningRequest
    sequence: Sequence
    sampler: TokenSampler
    choice: Choice


@dataclass(eq=False, slots=True)
class RunningRequest:
    """A request and its choices. `n_top` is how many likeliest tokens it wants; None for none."""

    request_id: str
    n_prompt: int
    n_top: int | None
    choices: list[RunningChoice]
    n_ended: int = 0

    def usage(self) -> Usage:
        """Return the counts once all choices have ended."""
        return Usage(
            prompt_tokens=self.n_prompt,
            completion_tokens=sum(running.choice.n_generated for running in self.choices),
            cached_tokens=self.choices[0].sequence.reused,
        )
