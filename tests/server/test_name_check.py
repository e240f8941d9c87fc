"""Weights under the name of another model."""

from __future__ import annotations

import logging
from typing import Literal

import pytest

from engines.types import ModelDescription
from server.catalog import catalog
from server.model_specs import ModelSpec
from server.name_check import check_weights
from server.settings import SettingsError


def check(
    name: str,
    architecture: str,
    format: Literal["gguf", "safetensors"] = "safetensors",
    billions: float = 0,
    variant: str = "",
) -> None:
    entry = catalog().find(name)
    assert entry is not None
    description = ModelDescription(
        name=name,
        path="/data/weights",
        format=format,
        architecture=architecture,
        parameters=round(billions * 1e9),
        variant=variant,
    )
    check_weights(entry, ModelSpec(name=name), description)


@pytest.mark.parametrize(
    ("name", "architecture", "variant"),
    [
        ("vicuna-13b", "falcon", ""),
        ("chatglm2-6b", "chatglm", "v1"),
        ("chatglm-6b", "chatglm", ""),
        ("flan-t5-base", "llama", ""),
    ],
)
def test_another_architecture_is_refused(name: str, architecture: str, variant: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check(name, architecture, variant=variant)
    for word in (name, "/data/weights", "LLM_MODEL_PATH", f"`parlm pull {name}`"):
        assert word in str(caught.value)


def test_the_architecture_may_have_other_names() -> None:
    check("falcon-40b", "RefinedWeb", billions=41.3)
    check("gemma-3-4b-it", "gemma3_text")
    check("mistral-7b-instruct-v0.3", "llama", "gguf")
    check("qwen3-30b-a3b", "qwen3moe", "gguf")
    check("gptj-6b", "phi2", "gguf")
    check("vicuna-13b", "")


def test_another_size_is_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    check("vicuna-13b", "llama", billions=6.7)
    assert "vicuna-13b should have 13.0 billion parameters" in caplog.text
    assert "/data/weights has 6.7" in caplog.text


def test_the_right_size_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check("vicuna-13b", "llama", billions=12.9)
        check("vicuna-13b", "llama", billions=0)
    assert caplog.text == ""
