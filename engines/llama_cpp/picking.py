"""Choose the next token of every sequence whose logits a step computed."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.decoding.logprobs import LogprobReader
from engines.llama_cpp.binding import Context
from engines.llama_cpp.requests import RunningChoice
from engines.llama_cpp.scheduler import Span
from engines.types import TokenLogprob


@dataclass(frozen=True, slots=True)
class Outputs:
    """The logits [row, token] of one choice's span, and their first row in the batch.

    A view of the step's logits: sampling settings are written into it.
    """

    running: RunningChoice
    span: Span
    logits: NDArray[np.float32]
    batch_row: int


@dataclass(frozen=True, slots=True)
class Pick:
    """A chosen token, with its log-probability if that is asked for."""

    token: int
    logprob: TokenLogprob | None


class TokenPicker:
    """Applies each choice's sampling settings to its rows of one context's logits."""

    def __init__(self, context: Context, logprobs: LogprobReader) -> None:
        self._context = context
        self._logprobs = logprobs

    def split(self, choices: Many[RunningChoice], spans: Many[Span]) -> list[Outputs]:
        """Return the outputs of the last step, of those spans that have any."""
        logits = self._context.logits(sum(span.n_outputs for span in spans))
        outputs = []
        row = batch_row = 0
        for running, span in zip(choices, spans, strict=True):
            batch_row += span.n_tokens
            if span.n_outputs:
                rows = logits[row : row + span.n_outputs]
                outputs.append(Outputs(running, span, rows, batch_row - span.n_outputs))
                row += span.n_outputs
        return outputs

    def pick(self, outputs: Outputs, row: int) -> Pick:
        """Choose a token from a row, once those chosen from the rows before it are accepted."""
        running, logits = outputs.running, outputs.logits[row]
        n_top, chain = running.request.n_top, running.sampler.chain
        # The model's own logits, from before the sampling settings are written into the row.
        raw = logits.copy() if n_top is not None else None
        running.sampler.adjust(logits)
        if chain is None:
            token = int(logits.argmax())
        else:
            token = chain.sample(self._context, outputs.batch_row + row)
        if raw is None or n_top is None:
            return Pick(token, None)
        return Pick(token, self._logprobs.read(raw, token, n_top))
