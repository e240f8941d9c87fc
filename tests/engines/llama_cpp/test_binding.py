from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from engines.llama_cpp.binding import Context, ContextParams, DecodeError, Model, SamplerChain
from tests.engines.tiny_gguf import (
    CHAT_TEMPLATE,
    CONTROL_TOKENS,
    USER_DEFINED_TOKEN,
    write_tiny_gguf,
)

# Keys and values are kept in half precision, and each batch shape adds up in its own order.
TOLERANCE = 0.03


@pytest.fixture(scope="module")
def model(tiny_gguf: Path) -> Iterator[Model]:
    model = Model(str(tiny_gguf), n_gpu_layers=0, use_mmap=True, use_mlock=False)
    yield model
    model.close()


@pytest.fixture(params=[False, True], ids=["buffer a slot", "one buffer"])
def context(model: Model, request: pytest.FixtureRequest) -> Iterator[Context]:
    params = ContextParams(3, 256, 64, n_threads=1, kv_unified=request.param)
    context = Context(model, params)
    yield context
    context.close()
    context.close()


def decode(context: Context, slot: int, tokens: list[int], start: int = 0) -> NDArray[np.float32]:
    """Decode tokens into a slot; return a copy of the last one's logits."""
    n = len(tokens)
    context.batch.tokens[:n] = tokens
    context.batch.positions[:n] = np.arange(start, start + n)
    context.batch.slots[:n] = slot
    context.batch.outputs[:n] = 0
    context.batch.outputs[n - 1] = 1
    context.decode(n)
    row: NDArray[np.float32] = context.logits(1)[0].copy()
    return row


def test_the_file_tells_what_it_is(model: Model) -> None:
    assert model.trained_context_length == 512
    assert model.metadata("general.architecture") == "llama"
    assert model.metadata("no.such.key") is None
    assert model.generates_text
    assert "llama" in model.description


def test_long_metadata_is_whole(model: Model) -> None:
    assert model.metadata("tokenizer.chat_template") == CHAT_TEMPLATE
    assert len(CHAT_TEMPLATE) > 256


def test_a_text_may_have_more_tokens_than_bytes(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokenize(_: object, __: bytes, ___: int, tokens: Any, size: int, *____: object) -> int:
        if size < 40:
            return -40
        tokens[:40] = range(40)
        return 40

    monkeypatch.setattr("engines.llama_cpp.binding.native.llama_tokenize", tokenize)
    assert model.vocabulary.tokenize(b"few") == list(range(40))


def test_the_memory_of_a_token_and_of_the_weights(model: Model, tiny_gguf: Path) -> None:
    # 2 layers, 2 heads of 16 numbers for keys and as many for values.
    assert model.kv_numbers_per_token == 2 * 2 * (16 + 16)
    assert 0.9 * tiny_gguf.stat().st_size < model.size_bytes < tiny_gguf.stat().st_size


def test_tokens_of_a_text_join_to_the_text(model: Model) -> None:
    text = "the quick 日本語 é 🙂\0</s> end".encode()
    ids = model.vocabulary.tokenize(text)
    assert b"".join(model.vocabulary.pieces[i] for i in ids) == text
    assert 0 < len(ids) < len(text)
    assert model.vocabulary.tokenize(b"") == []


@pytest.mark.parametrize("pre", ["falcon", "deepseek-llm"])
def test_a_long_run_of_one_character_does_not_overflow_the_stack(tmp_path: Path, pre: str) -> None:
    path = write_tiny_gguf(tmp_path / "model.gguf", pre=pre)
    model = Model(str(path), n_gpu_layers=0, use_mmap=True, use_mlock=False)
    assert len(model.vocabulary.tokenize(b"!" * 200_000)) == 200_000
    model.close()


def test_control_tokens_never_come_out_of_a_text(model: Model) -> None:
    ids = model.vocabulary.tokenize("".join(CONTROL_TOKENS).encode())
    assert min(ids) >= len(CONTROL_TOKENS)


def test_special_tokens_have_ids_by_name(model: Model) -> None:
    names = [*CONTROL_TOKENS, USER_DEFINED_TOKEN]
    assert [model.vocabulary.special_id(name) for name in names] == list(range(len(names)))
    assert model.vocabulary.special_id("<nope>") is None
    assert model.vocabulary.user_defined == {5: USER_DEFINED_TOKEN}


def test_control_tokens_have_names_but_add_nothing(model: Model) -> None:
    assert model.vocabulary.pieces[2] == b""
    assert model.vocabulary.names[2] == b"</s>"
    assert model.vocabulary.end_tokens == {2, 4}
    assert (model.vocabulary.bos, model.vocabulary.add_bos) == (1, True)


def test_a_prompt_in_pieces_gives_the_same_logits(context: Context) -> None:
    whole = decode(context, 0, [1, 50, 60, 70])
    decode(context, 1, [1, 50])
    pieces = decode(context, 1, [60, 70], start=2)
    np.testing.assert_allclose(pieces, whole, atol=TOLERANCE)


def test_a_slot_can_be_cut(context: Context) -> None:
    whole = decode(context, 0, [1, 50, 60, 70])
    assert context.keep(0, 2) == 2
    assert context.held(0) == 2
    np.testing.assert_allclose(decode(context, 0, [60, 70], start=2), whole, atol=TOLERANCE)


def test_a_slot_can_be_copied(context: Context) -> None:
    whole = decode(context, 0, [1, 50, 60, 70])
    decode(context, 2, [1, 90, 91])
    assert context.copy(0, 2, 3) == 3
    assert (context.held(0), context.held(2)) == (4, 3)
    np.testing.assert_allclose(decode(context, 2, [70], start=3), whole, atol=TOLERANCE)


def test_a_memory_that_cannot_be_cut_is_emptied(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(context, 0, [1, 50, 60])
    real = context.keep.__globals__["native"].llama_memory_seq_rm

    def refuse_parts(memory: object, slot: int, start: int, end: int) -> bool:
        return bool(start <= 0 and real(memory, slot, start, end))

    monkeypatch.setattr("engines.llama_cpp.binding.native.llama_memory_seq_rm", refuse_parts)
    assert context.keep(0, 2) == 0
    assert context.held(0) == 0


def test_rows_of_several_slots_come_in_the_order_of_the_batch(context: Context) -> None:
    alone = [decode(context, slot, [1, 50 + slot]) for slot in range(3)]
    for slot in range(3):
        context.keep(slot, 1)
    batch = context.batch
    batch.tokens[:3] = [52, 50, 51]
    batch.positions[:3] = 1
    batch.slots[:3] = [2, 0, 1]
    batch.outputs[:3] = 1
    context.decode(3)
    rows = context.logits(3)
    for row, slot in zip(rows, [2, 0, 1], strict=True):
        np.testing.assert_allclose(row, alone[slot], atol=TOLERANCE)


def test_a_batch_the_library_refuses_says_why(context: Context) -> None:
    with pytest.raises(DecodeError, match="code -1") as caught:
        decode(context, 0, [1], start=7)
        decode(context, 0, [1], start=3)
    assert caught.value.code == -1


def sample(context: Context, chain: SamplerChain, n: int = 1) -> list[int]:
    tokens = [chain.sample(context, 0) for _ in range(n)]
    chain.close()
    chain.close()
    return tokens


def chain(seed: int = 1, **options: Any) -> SamplerChain:
    defaults = {"temperature": 1.0, "min_p": 0.0, "top_k": 0, "top_p": 1.0}
    return SamplerChain(seed=seed, **(defaults | options))


def test_a_seed_repeats_the_draws(context: Context) -> None:
    decode(context, 0, [1])
    assert sample(context, chain(7), 20) == sample(context, chain(7), 20)
    assert sample(context, chain(7), 20) != sample(context, chain(8), 20)


def test_narrow_settings_leave_only_the_likeliest(context: Context) -> None:
    best = int(decode(context, 0, [1]).argmax())
    settings: list[dict[str, Any]] = [{"top_p": 0.01}, {"min_p": 0.999}, {"temperature": 0.01}]
    for options in settings:
        assert set(sample(context, chain(**options), 10)) == {best}


def test_top_k_bounds_the_candidates(context: Context) -> None:
    row = decode(context, 0, [1])
    best = set(np.argsort(-row)[:3].tolist())
    assert set(sample(context, chain(top_k=3, temperature=5.0), 60)) == best


def test_draws_see_what_was_written_into_the_row(context: Context) -> None:
    decode(context, 0, [1])
    context.logits(1)[0][77] = 1000.0
    assert sample(context, chain()) == [77]
