"""Training batches: conversations of like length together, in flat rows of a fixed size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from random import Random

import torch
from torch import Tensor

from parlm_tiny.config import TrainConfig
from parlm_tiny.encoding import PAD_ID, Encoded, Encoder
from parlm_tiny.mixture import training_chunk


@dataclass(frozen=True)
class Batch:
    """One micro-batch; see ``model`` for the flat layout."""

    flat: Tensor
    rows: int
    length: int
    at: Tensor
    target: Tensor
    weight: Tensor


def answer_weights(written: list[bool]) -> list[float]:
    """A weight for each token: 1 / sqrt(length of its answer), 0 outside answers.

    Without it the long workings of sums would drown the short answers of other skills.
    """
    weights: list[float] = []
    for is_answer, run in groupby(written):
        size = len(list(run))
        weights += [size**-0.5 if is_answer else 0.0] * size
    return weights


def lay_out(sequences: list[Encoded], length: int, flat_tokens: int) -> Batch:
    """Rows padded to ``length``, the row of all of them padded to ``flat_tokens``."""
    ids: list[int] = []
    at: list[int] = []
    target: list[int] = []
    weight: list[float] = []
    for sequence in sequences:
        start = len(ids)
        ids += sequence.ids + [PAD_ID] * (length - len(sequence.ids))
        weights = answer_weights(sequence.written)
        for place, value in enumerate(weights):
            if value:
                at.append(start + place - 1)
                target.append(sequence.ids[place])
                weight.append(value)
    ids += [PAD_ID] * (flat_tokens - len(ids))
    return Batch(
        torch.tensor(ids),
        len(sequences),
        length,
        torch.tensor(at),
        torch.tensor(target),
        torch.tensor(weight),
    )


def group_by_length(encoded: list[Encoded], flat_tokens: int) -> list[tuple[list[Encoded], int]]:
    """Full groups of sequences of like length, each with its padded length."""
    ordered = sorted(encoded, key=lambda sequence: -len(sequence.ids))
    groups: list[tuple[list[Encoded], int]] = []
    start = 0
    while start < len(ordered):
        length = len(ordered[start].ids)
        rows = flat_tokens // length
        groups.append((ordered[start : start + rows], length))
        start += rows
    return groups


def chunk_batches(encoder: Encoder, config: TrainConfig, chunk: int) -> list[Batch]:
    """The micro-batches of one chunk, in a random order that its number fixes."""
    drawn = training_chunk(config.seed, chunk, config.chunk_conversations)
    encoded = [encoder.conversation(conversation) for conversation, _ in drawn]
    encoded = [one for one in encoded if len(one.ids) <= config.flat_tokens]
    groups = group_by_length(encoded, config.flat_tokens)
    Random(f"order/{config.seed}/{chunk}").shuffle(groups)
    return [lay_out(sequences, length, config.flat_tokens) for sequences, length in groups]


def batches_from(
    encoder: Encoder, config: TrainConfig, chunk: int, skip: int
) -> Iterator[tuple[Batch, int, int]]:
    """Batches without end from a place in the stream, each with the place after it."""
    while True:
        made = chunk_batches(encoder, config, chunk)
        for index in range(skip, len(made)):
            yield made[index], chunk, index + 1
        chunk, skip = chunk + 1, 0
