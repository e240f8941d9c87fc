"""Models that are no class of transformers, through the whole core."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

import torch
from transformers import DynamicCache

from engines.types import PartsPrompt, SamplingParams, Special, Text
from tests.engines.core_driving import GREEDY, reasons, request, run, text_of, usage
from tests.engines.transformers.special_model import (
    END,
    MASK,
    START,
    LetterVocabulary,
    TinySpecial,
    load,
    load_causal,
)

if TYPE_CHECKING:
    from engines.transformers.core import TransformersCore
    from engines.transformers.special import SpecialModel
    from engines.transformers.vocabulary import Vocabulary

    # What the tests run is what the protocols ask for.
    model: SpecialModel = TinySpecial()
    vocabulary: Vocabulary = LetterVocabulary()

LOADERS = {True: load, False: load_causal}
WORDS = ["abc", "hello", "a", "thequickbrownfox"]


def make(is_bidirectional: bool, **options: int) -> TransformersCore:
    from engines.transformers.core import TransformersCore, create_core

    loader = f"{__package__}.special_model:{LOADERS[is_bidirectional].__name__}"
    core = create_core(
        model_path="", loader=loader, device="cpu", n_threads=1, prefill_chunk=2, **options
    )
    assert isinstance(core, TransformersCore)
    return core


def expected(ids: tuple[int, ...], count: int, is_bidirectional: bool) -> list[int]:
    """Greedy tokens, each from a single pass with the mask written out."""
    model = TinySpecial(is_prompt_bidirectional=is_bidirectional)
    last, tokens = len(ids) - 1, list(ids)
    with torch.inference_mode():
        for _ in range(count):
            n = len(tokens)
            mask = torch.tensor(
                [[j <= i or (is_bidirectional and j < last) for j in range(n)] for i in range(n)]
            )
            logits = model(
                torch.tensor([tokens]),
                position_ids=model.positions(len(ids), 0, n)[None],
                attention_mask=mask[None, None],
                past_key_values=DynamicCache(),
            )
            tokens.append(int(logits[0, -1].argmax()))
    return tokens[len(ids) :]


@pytest.mark.parametrize("is_bidirectional", [True, False])
def test_answers_in_a_batch_are_those_of_single_passes(is_bidirectional: bool) -> None:
    core = make(is_bidirectional, n_slots=3)
    sampling = replace(GREEDY, max_tokens=10, ignore_eos=True)
    events = run(core, *(request(word, sampling, word) for word in WORDS))
    for word in WORDS:
        ids = core.tokenize(PartsPrompt((Text(word),)))
        tokens = expected(ids, 10, is_bidirectional)
        pieces = LetterVocabulary().pieces
        assert text_of(events[word]) == b"".join(pieces[token] for token in tokens).decode()


def test_a_prompt_gets_its_suffix_once() -> None:
    core = make(True)
    bare = core.tokenize(PartsPrompt((Text("abc"),)))
    assert bare == (1, 2, 3, MASK, START)
    parts = (Text("abc"), Special("[gMASK]"), Special("<sop>"))
    assert core.tokenize(PartsPrompt(parts)) == bare


def test_its_stop_token_ends_an_answer() -> None:
    core = make(True)
    forced = SamplingParams(temperature=0.0, logit_bias=((END, 100.0),), max_tokens=9)
    events = run(core, request("abc", forced))["a"]
    assert reasons(events) == {0: "stop"}
    assert usage(events).prompt_tokens == 5


def test_its_context_is_a_limit() -> None:
    core = make(True)
    assert core.context_length == 64
    endless = SamplingParams(temperature=0.0, ignore_eos=True)
    assert usage(run(core, request("abc", endless))["a"]).completion_tokens == 59
