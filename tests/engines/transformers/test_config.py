from __future__ import annotations

from typing import Any

import pytest

from engines.transformers.config import LARGEST_DEFAULT_CONTEXT, TransformersOptions


@pytest.mark.parametrize(
    "bad",
    [
        {"n_slots": 0},
        {"context_length": 0},
        {"n_threads": -1},
        {"prefill_chunk": 0},
        {"num_gpus": 0},
        {"max_queue": -1},
        {"device": "tpu"},
        {"dtype": "int8"},
        {"quantize": "2bit"},
        {"max_gpu_memory": "much"},
    ],
)
def test_a_wrong_value_is_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        TransformersOptions(model_path="m", loader="l", **bad)


@pytest.mark.parametrize("size", ["16GiB", "16Gib", "0.5 GB", "900MB"])
def test_sizes_of_memory(size: str) -> None:
    assert TransformersOptions(model_path="m", loader="l", max_gpu_memory=size)


def test_a_long_context_is_a_wish_of_its_own() -> None:
    options = TransformersOptions(model_path="m", loader="l")
    assert options.resolve_context_length(1024) == 1024
    assert options.resolve_context_length(10**6) == LARGEST_DEFAULT_CONTEXT
    wide = TransformersOptions(model_path="m", loader="l", context_length=9000)
    assert wide.resolve_context_length(10**6) == 9000
