"""The requests in flight, and what each of their choices holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.decoding.choice import Choice
from engines.decoding.logprobs import PromptEcho
from engines.llama_cpp.sampling import TokenSampler
from engines.llama_cpp.slots import Sequence
from engines.types import Event, Usage


@dataclass(eq=False, slots=True)
class RunningChoice:
    """One choice with all that it holds. `echo` is the prompt it has yet to show, if asked."""

    request: RunningRequest
    sequence: Sequence
    sampler: TokenSampler
    choice: Choice
    echo: PromptEcho | None = None

    def read_prompt(self, rows: NDArray[np.float32]) -> None:
        """Take the logits behind the next tokens of the prompt."""
        if self.echo is not None:
            self.echo.read(rows)

    def take_echo(self) -> list[Event]:
        """Return what shows the prompt, once."""
        echo, self.echo = self.echo, None
        return [echo.event(self.choice.index)] if echo is not None else []


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
