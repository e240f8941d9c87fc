"""Whether a model computes in a batch what it computes alone.

transformers has hundreds of architectures, and some keep positions or memory in a way that a
batch of rows of different lengths breaks, without any error. So it is tried at load.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

import torch

from engines.errors import ModelLoadError
from engines.transformers.batch import Batch, Row
from engines.transformers.config import TransformersOptions
from engines.transformers.loading import Runnable
from engines.transformers.models import ModelRunner

logger = logging.getLogger(__name__)

# Of the logits' own spread: rounding stays far below, a wrong position far above.
_TOLERANCE = 0.01
_COARSE_TOLERANCE = 0.1  # of half precision, and of weights in 8 or 4 bits
_LENGTHS = (9, 5)
_STEPS = 5


def usable_slots(runnable: Runnable, options: TransformersOptions) -> int:
    """Return how many sequences may decode together: one, if a batch changes what is computed.

    Raises `ModelLoadError` for a model that is wrong even alone.
    """
    is_exact = runnable.dtype == torch.float32 and options.quantize is None
    allowed = _TOLERANCE if is_exact else _COARSE_TOLERANCE
    if options.n_slots > 1:
        error = _batch_error(runnable, 2)
        if error <= allowed:
            return options.n_slots
        logger.warning(
            "%s: in a batch its logits differ from those of a row alone (by %.3g of their "
            "spread): requests run one at a time",
            *(options.model_path, error),
        )
    error = _batch_error(runnable, 1)
    if error > allowed:
        raise ModelLoadError(
            f"{options.model_path}: with keys and values in memory its logits differ from those "
            f"of a single pass, by {error:.3g} of their spread: this engine cannot run it"
        )
    return 1


def _batch_error(runnable: Runnable, n_rows: int) -> float:
    with torch.inference_mode():
        return batch_error(runnable.runner, n_rows)


def batch_error(runner: ModelRunner, n_rows: int) -> float:
    """Return how far logits in a batch of `n_rows`, 1 or 2, are from those of a single pass.

    As the root mean square of the difference, in terms of the logits' own spread. The second row
    joins after the first has begun, so that every length in the batch differs.
    """
    numbers = random.Random(0)  # noqa: S311 - any tokens will do

    def tokens(count: int) -> list[int]:
        return [numbers.randrange(runner.n_vocab) for _ in range(count)]

    batch = Batch(runner, n_rows)
    texts: dict[Row, tuple[list[int], list[int]]] = {}
    error = 0.0
    for number in range(_STEPS):
        if number % 2 == 0 and len(texts) < n_rows:
            prompt = [*runner.prefix, *tokens(_LENGTHS[len(texts)]), *runner.suffix]
            texts[_join(batch, runner, prompt)] = (prompt, [])
        logits = batch.step()
        for row, (prompt, answer) in texts.items():
            error = max(error, _distance(logits[row.index], runner, prompt, answer))
            answer += tokens(1)
            row.token = answer[-1]
    return error


def _join(batch: Batch, runner: ModelRunner, prompt: list[int]) -> Row:
    prefill = runner.prefill(prompt)
    while prefill.n_left:
        prefill.advance(prefill.n_left // 2 + 1)
    return batch.join(prefill.finish())


def _distance(
    found: torch.Tensor, runner: ModelRunner, prompt: Sequence[int], answer: Sequence[int]
) -> float:
    expected = runner.whole(prompt, answer).float().cpu()
    spread = float((expected - expected.mean()).norm())
    difference = float((found - expected).norm())
    # Not a number is no agreement.
    return (
        difference / spread if spread > 0 and difference == difference else float(difference != 0)
    )
