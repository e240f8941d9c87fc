from __future__ import annotations

import logging
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import torch

from engines.errors import ModelLoadError
from engines.transformers.config import TransformersOptions
from engines.transformers.loading import Loaded, Runnable, prepare
from engines.transformers.selfcheck import usable_slots
from tests.engines.transformers import families
from tests.engines.transformers.special_model import LetterVocabulary

OPTIONS = TransformersOptions(model_path="m", loader="", n_slots=6)


def runnable(family: str) -> Runnable:
    model = families.build(family)
    return prepare(Loaded(model, LetterVocabulary(), "cpu"), OPTIONS)


@pytest.mark.parametrize("family", [*families.CAUSAL, "t5"])
def test_the_promised_architectures_run_in_a_batch(family: str) -> None:
    assert usable_slots(runnable(family), OPTIONS) == 6


def test_one_that_a_batch_changes_runs_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert usable_slots(runnable("bart"), OPTIONS) == 1
    assert "one at a time" in caplog.text


def test_one_that_memory_changes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = runnable("llama")
    decode = found.runner.decode

    def forgetful(*arguments: Any) -> torch.Tensor:
        return decode(*arguments).flip(1)

    monkeypatch.setattr(found.runner, "decode", forgetful)
    with pytest.raises(ModelLoadError, match="cannot run it"):
        usable_slots(found, OPTIONS)
