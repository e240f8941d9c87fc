"""Both generations through the transformers engine: batches, prefixes, limits, texts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")

from engines.chatglm import load
from engines.errors import ContextLengthExceeded
from engines.types import (
    Event,
    Finish,
    GenerationRequest,
    PartsPrompt,
    Prompt,
    SamplingParams,
    Special,
    Text,
    TextDelta,
    TokensPrompt,
    Usage,
)
from tests.engines.chatglm.driving import TINY, decode, golden
from tests.engines.chatglm.tiny_chatglm2 import GMASK, SOP, random_weights, write_folder

COUNT = 20
GREEDY = SamplingParams(temperature=0.0, max_tokens=COUNT, ignore_eos=True)


def make_core(folder: Path, **options: int) -> Any:
    create_core = import_module("engines.transformers.core").create_core
    return create_core(
        model_path=str(folder), loader="engines.chatglm:load", device="cpu", n_threads=1, **options
    )


def run(core: Any, prompts: Sequence[Prompt]) -> list[list[Event]]:
    """Run requests together to their ends."""
    events: dict[str, list[Event]] = {}
    for number, prompt in enumerate(prompts):
        core.submit(GenerationRequest(str(number), prompt, GREEDY))
        events[str(number)] = []
    while core.has_work():
        for output in core.step():
            assert output.error is None
            events[output.request_id] += output.events
    return list(events.values())


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def expected_text(model: Any, tokenizer: Any, ids: Sequence[int]) -> str:
    tokens, _ = decode(model, ids, COUNT)
    data = b"".join(tokenizer.pieces[token] for token in tokens)
    return data.removeprefix(b" ").decode(errors="replace")


def test_answers_of_a_batch_are_those_of_single_steps() -> None:
    model, tokenizer = load(str(TINY), {})
    core = make_core(TINY, n_slots=3)
    prompts: list[Prompt] = [
        TokensPrompt(tuple(golden().input_ids)),
        TokensPrompt((99, 250)),  # the engine puts [gMASK] and <sop> behind it
        PartsPrompt(
            (Text("[Round 0]\n问：你好\n答："), Special("[gMASK]"), Special("<sop>")), False
        ),
        PartsPrompt((Text("你好"),)),
    ]
    ids = [core.tokenize(prompt) for prompt in prompts]
    assert [row[-2:] for row in ids] == [(5, 8)] * 4
    assert len(ids[0]) == len(golden().input_ids)
    for events, row in zip(run(core, prompts), ids, strict=True):
        assert text_of(events) == expected_text(model, tokenizer, row)
        assert events[-2:] == [Finish(0, "length"), Usage(len(row), COUNT)]
    core.close()


def test_the_context_is_that_of_the_config() -> None:
    core = make_core(TINY)
    assert core.context_length == 2048
    with pytest.raises(ContextLengthExceeded, match="2048"):
        core.submit(GenerationRequest("a", TokensPrompt((20,) * 2046), GREEDY))
    core.close()


def test_chatglm2_in_a_batch(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, random_weights())
    model, tokenizer = load(str(folder), {})
    core = make_core(folder, n_slots=3)
    prompts: list[Prompt] = [
        PartsPrompt((Text("hello world"),)),
        PartsPrompt(
            (Special("[gMASK]"), Special("sop"), Text("[Round 1]\n\n问：hi\n\n答：")), False
        ),
        TokensPrompt((17, 40, 250)),
    ]
    ids = [core.tokenize(prompt) for prompt in prompts]
    assert [row[:2] for row in ids] == [(GMASK, SOP)] * 3
    assert ids[1].count(SOP) == 1
    for events, row in zip(run(core, prompts), ids, strict=True):
        assert text_of(events) == expected_text(model, tokenizer, row)
    core.close()
