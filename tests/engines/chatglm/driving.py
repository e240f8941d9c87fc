"""Runs a model of the family step by step, as simply as it can be done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

TINY = Path(__file__).parents[2] / "data" / "chatglm_tiny"


@dataclass(frozen=True)
class Golden:
    """What the authors' code made of the tiny model."""

    input_ids: list[int]
    logits_last: list[float]
    position_ids: list[list[int]]
    mask_true_means_masked: list[list[int]]
    greedy: list[int]
    step_logits_first8: list[list[float]]


def golden() -> Golden:
    content: dict[str, Any] = json.loads((TINY / "golden.json").read_bytes())
    del content["made_by"]
    return Golden(**content)


class GrowingCache:
    """The keys and values of all layers, one tensor longer with each call."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Any, Any]] = {}

    def update(self, keys: Any, values: Any, layer: int) -> tuple[Any, Any]:
        if layer in self._layers:
            before = self._layers[layer]
            keys, values = (torch.cat(pair, 2) for pair in zip(before, (keys, values), strict=True))
        self._layers[layer] = keys, values
        return keys, values


def visible(model: Any, prompt_length: int, start: int, stop: int) -> torch.Tensor:
    """Which of the tokens [0, stop) each of [start, stop) sees."""
    border = prompt_length - 1 if model.is_prompt_bidirectional else 0
    rows, columns = torch.arange(start, stop)[:, None], torch.arange(stop)
    return (columns < border) | (columns <= rows)


def logits(
    model: Any, ids: Sequence[int], prompt_length: int, cache: GrowingCache, start: int = 0
) -> torch.Tensor:
    """Return those after each of the tokens from `start` on; the cache holds the ones before."""
    stop = len(ids)
    with torch.inference_mode():
        result: torch.Tensor = model(
            torch.tensor([ids[start:]]),
            position_ids=model.positions(prompt_length, start, stop)[None],
            attention_mask=visible(model, prompt_length, start, stop)[None, None],
            past_key_values=cache,
        )
    return result[0].float()


def decode(model: Any, prompt: Sequence[int], count: int) -> tuple[list[int], torch.Tensor]:
    """Return `count` greedy tokens and the logits each was chosen from, computed with a cache."""
    ids, cache, start = list(prompt), GrowingCache(), 0
    rows = []
    for _ in range(count):
        rows.append(logits(model, ids, len(prompt), cache, start)[-1])
        start = len(ids)
        ids.append(int(rows[-1].argmax()))
    return ids[len(prompt) :], torch.stack(rows)
