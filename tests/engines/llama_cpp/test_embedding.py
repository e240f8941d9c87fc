"""Embeddings against transformers on the same weights, and how the work is cut into pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
pytest.importorskip("gguf", reason="gguf is not installed")

from engines.core import EmbeddedPart, EmbedsInParts
from engines.errors import (
    EngineError,
    EngineUnavailable,
    InputTooLong,
    InvalidParameter,
    InvalidRequest,
    UnsupportedOperation,
    UnsupportedParameter,
)
from engines.llama_cpp.core import LlamaCppCore, create_core
from engines.llama_cpp.embedding import CHUNK, LEAST_CHUNK, Running
from engines.llama_cpp.encoder import EncoderCore
from engines.types import EmbeddingRequest, MessagesPrompt, Prompt, TokensPrompt
from tests.engines.core_driving import answer, finish, prompt, request, text_of
from tests.engines.tiny_bert import (
    CONTEXT_LENGTH,
    make_bert,
    write_bert_gguf,
    write_vocabulary,
)

if TYPE_CHECKING:
    MakeCore = Callable[..., LlamaCppCore]

Vector = NDArray[np.float32]
Core = LlamaCppCore | EncoderCore

TEXTS = [
    "hello world",
    "tell me a story",
    "the quick brown fox jumps over the lazy dog " * 20,
    "日本語 é",
    "the sun",
]
BERT_TEXTS = ["hello world", "Telling the Quick brown foxes, a story!", "a b c " * 15]


def parts(core: EmbedsInParts, *prompts: Prompt | str, **fields: Any) -> list[EmbeddedPart]:
    as_prompts = tuple(prompt(each) if isinstance(each, str) else each for each in prompts)
    return list(core.embed(EmbeddingRequest("e", as_prompts, **fields)))


def embed(core: EmbedsInParts, *prompts: Prompt | str, **fields: Any) -> list[Vector]:
    """The vectors of prompts, in order."""
    vectors: dict[int, Vector] = {}
    for part in parts(core, *prompts, **fields):
        vectors |= {index: np.frombuffer(data, "<f4") for index, data in part.vectors}
    return [vectors[index] for index in range(len(prompts))]


def pooled(states: Vector, pooling: str) -> Vector:
    """The reference: pooled and normalised by numpy."""
    vector = {"mean": states.mean(axis=0), "cls": states[0], "last": states[-1]}[pooling]
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


@pytest.fixture(scope="module")
def llama(tiny_gguf: Path) -> Any:
    """The random model as transformers reads it."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    return transformers.LlamaModel.from_pretrained(
        str(tiny_gguf.parent), gguf_file=tiny_gguf.name, dtype=torch.float32
    )


@pytest.fixture(scope="module")
def bert() -> Any:
    pytest.importorskip("transformers", reason="transformers is not installed")
    return make_bert()


def states(model: Any, ids: Sequence[int]) -> Vector:
    import torch

    with torch.no_grad():
        last: Vector = model(torch.tensor([list(ids)])).last_hidden_state[0].numpy()
    return last


@pytest.mark.parametrize("pooling", [None, "mean", "cls", "last"])
def test_a_generating_model_equals_transformers(
    make_core: MakeCore, llama: Any, pooling: Any
) -> None:
    core = make_core(pooling=pooling)
    for text, vector in zip(TEXTS, embed(core, *TEXTS), strict=True):
        reference = pooled(states(llama, core.tokenize(prompt(text))), pooling or "mean")
        assert np.abs(vector - reference).max() < 2e-3, text
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("declared", "option", "pooling"),
    [(None, None, "mean"), (2, None, "cls"), (3, None, "last"), (2, "mean", "mean")],
)
def test_an_encoder_equals_transformers(
    bert: Any, tmp_path: Path, declared: int | None, option: Any, pooling: str
) -> None:
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast(str(write_vocabulary(tmp_path / "vocab.txt")))
    path = write_bert_gguf(bert, tmp_path / "bert.gguf", declared)
    core = create_core(model_path=str(path), n_threads=1, pooling=option)
    for text, vector in zip(BERT_TEXTS, embed(core, *BERT_TEXTS), strict=True):
        reference = pooled(states(bert, tokenizer(text)["input_ids"]), pooling)
        assert np.abs(vector - reference).max() < 2e-3, text
    core.close()


@pytest.fixture
def encoder(bert: Any, tmp_path: Path) -> Iterator[EncoderCore]:
    path = write_bert_gguf(bert, tmp_path / "bert.gguf")
    core = create_core(model_path=str(path), n_threads=1)
    assert isinstance(core, EncoderCore)
    yield core
    core.close()
    core.close()


def test_an_encoder_generates_nothing(encoder: EncoderCore) -> None:
    with pytest.raises(UnsupportedOperation, match="generates no text"):
        encoder.submit(request("hello"))
    assert not encoder.has_work()
    assert encoder.step() == []
    encoder.cancel("a")
    assert encoder.context_length == CONTEXT_LENGTH
    assert "bert" in encoder.detail


def test_the_longest_text_of_an_encoder(encoder: EncoderCore) -> None:
    n_letters = CONTEXT_LENGTH - 2  # beside [CLS] and [SEP]
    assert len(embed(encoder, "a " * n_letters)) == 1
    with pytest.raises(InputTooLong, match=r"length is 64 tokens. However, input\[1\] has 65"):
        embed(encoder, "a", "a " * (n_letters + 1))


def test_a_closed_encoder_is_not_used(encoder: EncoderCore) -> None:
    encoder.close()
    with pytest.raises(EngineUnavailable):
        encoder.tokenize(prompt("a"))
    with pytest.raises(EngineUnavailable):
        parts(encoder, "a")


def test_a_reranker_makes_no_embeddings(bert: Any, tmp_path: Path) -> None:
    path = write_bert_gguf(bert, tmp_path / "bert.gguf", pooling=4)
    core = create_core(model_path=str(path), n_threads=1)
    with pytest.raises(UnsupportedOperation, match="ranks"):
        embed(core, "a")
    core.close()


def test_many_inputs_give_what_each_gives_alone(core: LlamaCppCore) -> None:
    texts = [f"number {i} is {'nice ' * (i % 7)}" for i in range(80)]
    together = embed(core, *texts)
    for i in (0, 31, 32, 33, 79):
        assert np.abs(together[i] - embed(core, texts[i])[0]).max() < 2e-3


def test_token_ids_are_taken_as_they_are(core: LlamaCppCore) -> None:
    ids = core.tokenize(prompt("tell me a story"))
    from_ids, from_text = embed(core, TokensPrompt(ids), "tell me a story")
    assert np.abs(from_ids - from_text).max() < 2e-3
    with pytest.raises(InvalidParameter, match="not in the vocabulary") as caught:
        embed(core, "a", TokensPrompt((1, 100_000)))
    assert caught.value.param == "input[1]"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces as long as they may be, however busy the machine is."""
    monkeypatch.setattr("engines.llama_cpp.embedding.PIECE_SECONDS", math.inf)


def test_short_texts_share_a_piece_and_a_long_one_takes_several(
    core: LlamaCppCore, patient: None
) -> None:
    short = parts(core, *["tell me a story"] * 10)
    assert [len(part.vectors) for part in short] == [10]
    long = parts(core, TokensPrompt((300,) * (CHUNK + 1)), TokensPrompt((300,)))
    assert [len(part.vectors) for part in long] == [0, 1, 1]
    assert [part.prompt_tokens for part in long] == [0, CHUNK + 1, 1]


def test_a_slow_model_has_shorter_pieces(
    core: LlamaCppCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TokensPrompt(tuple(range(300, 300 + 2 * LEAST_CHUNK + 1)))
    fast = embed(core, text)[0]
    monkeypatch.setattr("engines.llama_cpp.embedding.PIECE_SECONDS", 0.0)
    assert [len(part.vectors) for part in parts(core, text)] == [0, 0, 1]
    assert np.abs(embed(core, text)[0] - fast).max() < 2e-3


def test_long_lists_are_tokenised_in_pieces_too(core: LlamaCppCore) -> None:
    first = next(core.embed(EmbeddingRequest("e", (prompt("a " * 200),) * 400)))
    assert first == EmbeddedPart()


def test_a_text_that_is_too_long_is_named(make_core: MakeCore) -> None:
    core = make_core(context_length=64)
    with pytest.raises(InputTooLong) as caught:
        embed(core, "short", TokensPrompt((300,) * 65))
    assert caught.value.param == "input[1]"
    assert caught.value.limit == 64
    with pytest.raises(InputTooLong, match="at least"):
        embed(core, "long " * 10_000)


def test_where_memory_is_short_texts_must_be_shorter(
    make_trained_core: MakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = make_trained_core()
    monkeypatch.setattr("engines.llama_cpp.embedding.free_memory", lambda: 0)
    with pytest.raises(InputTooLong, match="length is 512 tokens"):
        embed(core, TokensPrompt((300,) * 600))
    assert core.context_length == 1024


def test_what_is_no_text_is_named(core: LlamaCppCore) -> None:
    with pytest.raises(InvalidRequest) as caught:
        embed(core, MessagesPrompt(()))
    assert caught.value.param == "input[0]"
    assert parts(core) == []


def test_dimensions_are_the_models_own(core: LlamaCppCore) -> None:
    assert len(embed(core, "a", dimensions=64)[0]) == 64
    with pytest.raises(UnsupportedParameter, match="have 64 dimensions"):
        embed(core, "a", dimensions=32)


def test_an_answer_runs_on_beside_embeddings(core: LlamaCppCore) -> None:
    alone = answer(core, "the quick brown")
    core.submit(request("the quick brown"))
    job = core.embed(EmbeddingRequest("e", tuple(map(prompt, TEXTS))))
    events = []
    for _ in job:
        events += [event for output in core.step() for event in output.events]
    events += finish(core)["a"]
    assert text_of(events) == alone


def test_requests_take_turns_after_vectors(core: LlamaCppCore, patient: None) -> None:
    texts = [f"the fox number {i} " * 10 for i in range(12)]
    alone = embed(core, *texts)
    jobs = [core.embed(EmbeddingRequest(i, tuple(map(prompt, texts)))) for i in "ab"]
    vectors: list[dict[int, bytes]] = [{}, {}]
    for parts_of_both in zip(*jobs, strict=True):
        for found, part in zip(vectors, parts_of_both, strict=True):
            assert part.vectors
            found |= dict(part.vectors)
    for found in vectors:
        assert [found[i] for i in range(12)] == [vector.tobytes() for vector in alone]


def test_a_request_given_up_leaves_nothing_behind(core: LlamaCppCore, patient: None) -> None:
    before = embed(core, "hello world")[0]
    job = core.embed(EmbeddingRequest("e", (TokensPrompt((300,) * (CHUNK + 1)),)))
    next(job)
    job.close()
    assert np.array_equal(embed(core, "hello world")[0], before)


def test_adapters_and_types_of_keys_count_here_too(make_trained_core: MakeCore) -> None:
    plain = embed(make_trained_core(), "hello world")[0]
    coarse = embed(make_trained_core(kv_type="q4_0"), "hello world")[0]
    assert not np.array_equal(plain, coarse)
    assert float(plain @ coarse) > 0.99


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_in_parts_is_pooling_at_once(pooling: Any) -> None:
    rows = np.random.default_rng(0).standard_normal((10, 8), dtype=np.float32)
    vector = Running(pooling)
    for start in range(0, 10, 3):
        vector.add(rows[start : start + 3])
    assert np.allclose(vector.result(), pooled(rows, pooling), atol=1e-6)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_a_direction_is_an_error(value: float) -> None:
    vector = Running("mean")
    vector.add(np.full((2, 4), value, np.float32))
    with pytest.raises(EngineError, match="direction"):
        vector.result()
