from __future__ import annotations

from itertools import pairwise
from threading import active_count
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from adapters.generating import generate_stream
from adapters.inherited import BaseLLMAdaper
from tests.adapters.tiny_models import write_llama

PARAMS: dict[str, Any] = {"prompt": "Hi", "temperature": 0, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return BaseLLMAdaper().loader(str(write_llama(tmp_path_factory.mktemp("llama"))), {})


def texts(loaded: tuple[Any, Any], context_len: int = 128, **params: Any) -> list[str]:
    return list(generate_stream(*loaded, {**PARAMS, **params}, "cpu", context_len))


def complete(text: str) -> str:
    """The text without a character that the next token may complete."""
    return text.rstrip("\ufffd")


def whole(loaded: tuple[Any, Any], n_tokens: int = 12) -> str:
    model, tokenizer = loaded
    ids = tokenizer("Hi", return_tensors="pt").input_ids
    answer = model.generate(ids, do_sample=False, max_new_tokens=n_tokens)[0, ids.shape[1] :]
    return str(tokenizer.decode(answer, skip_special_tokens=True))


def test_each_item_is_the_text_so_far(loaded: tuple[Any, Any]) -> None:
    items = texts(loaded)
    assert items[-1] == whole(loaded) != ""
    assert all(after.startswith(before) for before, after in pairwise(map(complete, items)))


def test_a_stop_is_no_part_of_the_text(loaded: tuple[Any, Any]) -> None:
    answer = whole(loaded)
    stop = answer[3:5]
    for stops in (stop, [stop, "no such text"]):
        items = texts(loaded, stop=stops)
        assert items[-1] == answer[: answer.index(stop)]
        assert not any(stop[0] in item[answer.index(stop) :] for item in items)


def test_the_context_bounds_the_answer(loaded: tuple[Any, Any]) -> None:
    assert texts(loaded, context_len=7)[-1] == whole(loaded, 5)
    with pytest.raises(ValueError, match="does not fit into 2 tokens"):
        texts(loaded, context_len=2)


def test_sampling(loaded: tuple[Any, Any]) -> None:
    assert texts(loaded, temperature=2.0, top_p=0.9, max_new_tokens=3)


def test_closing_ends_the_generation(loaded: tuple[Any, Any]) -> None:
    before = active_count()
    stream: Any = generate_stream(*loaded, {**PARAMS, "max_new_tokens": 100}, "cpu", 128)
    next(stream)
    stream.close()
    assert active_count() == before


def test_an_error_of_the_model_is_raised(loaded: tuple[Any, Any]) -> None:
    class Broken:
        def generate(self, **options: Any) -> None:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(generate_stream(Broken(), loaded[1], PARAMS, "cpu", 128))
