"""A T5 with its own tokenizer, through the whole core, against the library's own generation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import torch

from engines.types import PartsPrompt, SamplingParams, Special, Text
from tests.engines.core_driving import GREEDY, request, run, text_of, usage
from tests.engines.tiny_folder import save
from tests.engines.transformers import families, tokenizer_kinds

if TYPE_CHECKING:
    from engines.transformers.core import TransformersCore

TEXTS = ["hello world", "translate hello", "a b c d e f g", "world"]


def load(path: str, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """A loader of encoder-decoders."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    return AutoModelForSeq2SeqLM.from_pretrained(path, **arguments), AutoTokenizer.from_pretrained(
        path
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = families.build("t5")
    model.config.eos_token_id = model.generation_config.eos_token_id = 1
    place = tmp_path_factory.mktemp("t5")
    return save(model, tokenizer_kinds.build("t5_fast", place), place / "model")


@pytest.fixture
def core(folder: Path) -> TransformersCore:
    from engines.transformers.core import TransformersCore, create_core

    core = create_core(
        model_path=str(folder), loader=f"{__name__}:load", device="cpu", n_threads=1, n_slots=3
    )
    assert isinstance(core, TransformersCore)
    return core


def test_answers_in_a_batch_are_those_of_generate(core: TransformersCore, folder: Path) -> None:
    model, tokenizer = load(str(folder), {"dtype": torch.float32})
    events = run(core, *(request(text, GREEDY, text) for text in TEXTS))
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")
        assert core.tokenize(PartsPrompt((Text(text),))) == tuple(ids["input_ids"][0].tolist())
        answer = model.generate(**ids, max_new_tokens=24, do_sample=False)[0, 1:]
        pieces = tokenizer.convert_ids_to_tokens(answer[answer < len(tokenizer)])
        plain = [piece for piece in pieces if piece not in tokenizer.all_special_tokens]
        whole = "".join(plain).replace("▁", " ")
        assert text_of(events[text]) == whole.removeprefix(" ")
        assert usage(events[text]).completion_tokens == len(answer)
        assert usage(events[text]).prompt_tokens == len(ids["input_ids"][0])


def test_the_end_token_stands_once_behind_a_text(core: TransformersCore) -> None:
    bare = core.tokenize(PartsPrompt((Text("hello"),)))
    ended = PartsPrompt((Text("hello"), Special("</s>")), add_bos=False)
    assert core.tokenize(ended) == bare
    assert bare.count(1) == 1


def test_choices_share_one_encoding(
    core: TransformersCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = mock.Mock(wraps=core._runner.prefill)
    monkeypatch.setattr(core._runner, "prefill", calls)
    sampling = SamplingParams(seed=1, n=4, max_tokens=5, ignore_eos=True)
    assert usage(run(core, request("hello", sampling))["a"]).completion_tokens == 20
    assert calls.call_count == 1


def test_its_context_counts_both_sides(core: TransformersCore) -> None:
    assert core.context_length == 128
