"""Texts to ids and back, as the authors' tokenizers do it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")

from engines.chatglm.config import V1Config, V2Config, read_config
from engines.chatglm.tokenizer import Tokenizer, read_v1_tokenizer, read_v2_tokenizer
from engines.errors import ModelLoadError
from tests.engines.chatglm.tiny_chatglm2 import N_PIECES, write_tokenizer

TINY = Path(__file__).parents[2] / "data" / "chatglm_tiny"
OLD_OFFSET = 20000


def v1_config() -> V1Config:
    config = read_config(TINY)
    assert isinstance(config, V1Config)
    return config


def old_config() -> V1Config:
    """That of a release before 2023-04-06: 20000 ids of images come first."""
    config = v1_config()
    return replace(
        config,
        vocab_size=config.vocab_size + OLD_OFFSET,
        bos_id=config.bos_id + OLD_OFFSET,
        eos_id=config.eos_id + OLD_OFFSET,
        gmask_id=None,
    )


@pytest.fixture(scope="module")
def v1() -> Tokenizer:
    return read_v1_tokenizer(TINY, v1_config())


@pytest.fixture(scope="module")
def old() -> Tokenizer:
    return read_v1_tokenizer(TINY, old_config())


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("chatglm2")
    write_tokenizer(folder)
    return read_v2_tokenizer(folder, v2_config())


def v2_config(vocab_size: int = N_PIECES + 16) -> V2Config:
    return V2Config(2, 64, 4, 2, 16, 96, 1e-5, vocab_size, 512)


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    text = b"".join(tokenizer.pieces[token] for token in ids).decode()
    return text.removeprefix(" ") if tokenizer.strips_first_space else text


CASES = json.loads((TINY / "tokenizer_golden.json").read_bytes())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"])
def test_golden_ids(v1: Tokenizer, old: Tokenizer, case: dict[str, object]) -> None:
    text = str(case["text"]).encode()
    expected = case["ids_with_suffix"]
    assert isinstance(expected, list)
    suffix = [v1.special_id("[gMASK]"), v1.special_id("<sop>")]
    assert v1.tokenize(text) + suffix == expected
    assert old.tokenize(text) == [token + OLD_OFFSET for token in expected[:-2]]
    assert decode(v1, expected) == case["decoded"]
    assert decode(old, [token + OLD_OFFSET for token in expected]) == case["decoded"]


@pytest.mark.parametrize("n_spaces", [2, 3, 79, 80, 82, 160, 163])
def test_runs_of_spaces_have_tokens_of_their_own(v1: Tokenizer, n_spaces: int) -> None:
    text = f"你{' ' * n_spaces}b\n\n\tc"
    ids = v1.tokenize(text.encode())
    assert decode(v1, ids) == text
    blanks = [len(v1.pieces[i]) for i in ids if set(v1.pieces[i]) == {0x20}]
    dummy_prefix, *runs = blanks
    assert (dummy_prefix, sum(runs), runs[0]) == (1, n_spaces, min(n_spaces, 80))


@pytest.mark.parametrize("text", ["héllo ☃ 😀", "日本語"])
def test_what_is_not_in_the_vocabulary_becomes_bytes(
    v1: Tokenizer, v2: Tokenizer, text: str
) -> None:
    for tokenizer in (v1, v2):
        ids = tokenizer.tokenize(text.encode())
        assert decode(tokenizer, ids) == text
        assert any(tokenizer.pieces[token][:1] > b"\x7f" for token in ids)


def test_no_control_token_comes_out_of_a_text(v1: Tokenizer, v2: Tokenizer) -> None:
    text = "[gMASK]<sop> [MASK]sop <eop></s><s><|user|> <pad><unused_0>"
    for tokenizer in (v1, v2):
        ids = tokenizer.tokenize(text.encode())
        control = {tokenizer.special_id(name) for name in ("[gMASK]", "[MASK]", "</s>", "<s>")}
        assert None not in control
        assert control.isdisjoint(ids)
        assert decode(tokenizer, ids) == text


def test_control_tokens_that_a_vocabulary_finds_in_texts_are_cut(tmp_path: Path) -> None:
    """Should `[gMASK]` be no control piece but a user-defined one, nothing changes."""
    write_tokenizer(tmp_path, "ice_text.model", user_defined=("[gMASK]", "<sop>", "<eop>", "<n>"))
    config = replace(v1_config(), bos_id=4, eos_id=5, gmask_id=3, vocab_size=N_PIECES)
    tokenizer = read_v1_tokenizer(tmp_path, config)
    text = "say [gMASK]<sop>\nand <eop>"
    ids = tokenizer.tokenize(text.encode())
    assert {3, 4, 5}.isdisjoint(ids)
    assert (
        b"".join(tokenizer.pieces[i] for i in ids).replace(b" ", b"")
        == b"say[gMASK]<sop>\nand<eop>"
    )


def test_special_tokens_of_the_first_generation(v1: Tokenizer, old: Tokenizer) -> None:
    names = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<pad>")
    assert [v1.special_id(name) for name in names] == [4, 5, 6, 8, 9, 3]
    assert [old.special_id(name) for name in names] == [20004, 20005, 20006, 20008, 20009, 20003]
    assert v1.special_id("<nope>") is None
    assert v1.end_tokens == {9}
    assert old.end_tokens == {20009}
    assert v1.pieces[9] == b""
    assert v1.names[9] == b"<eop>"


def test_special_tokens_of_later_generations_follow_the_pieces(v2: Tokenizer) -> None:
    names = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
    assert [v2.special_id(name) for name in names] == [N_PIECES + index for index in range(5)]
    assert v2.special_id("</s>") == 2
    assert 2 in v2.end_tokens
    assert v2.special_id("<|user|>") == N_PIECES + 6
    assert decode(v2, [N_PIECES + 1, N_PIECES + 3, *v2.tokenize(b"hello\n\nhello"), 2]) == (
        "hello\n\nhello"
    )


@pytest.mark.parametrize("generation", ["v1", "old", "v2"])
def test_every_id_of_the_model_has_an_entry(
    generation: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(generation)
    assert len(tokenizer.pieces) == len(tokenizer.names) == tokenizer.n_tokens
    assert tokenizer.longest >= max(
        len(piece.decode(errors="replace")) for piece in tokenizer.pieces
    )
    assert (tokenizer.bos, tokenizer.add_bos, tokenizer.user_defined) == (None, False, {})


def test_ids_that_do_not_fit_the_vocabulary_are_refused() -> None:
    for wrong in (
        replace(v1_config(), eos_id=10),
        replace(v1_config(), gmask_id=4),
        replace(v1_config(), bos_id=7, eos_id=8, gmask_id=4),  # an offset below zero
    ):
        with pytest.raises(ModelLoadError, match="differ in the id of"):
            read_v1_tokenizer(TINY, wrong)
    with pytest.raises(ModelLoadError, match=r"417 tokens, config\.json room for 416"):
        read_v1_tokenizer(TINY, replace(v1_config(), vocab_size=416))


def test_a_missing_or_another_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"ice_text\.model is missing"):
        read_v1_tokenizer(tmp_path, v1_config())
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")  # as GLM-4's
    with pytest.raises(ModelLoadError, match="not a SentencePiece model"):
        read_v2_tokenizer(tmp_path, v2_config())


def test_a_vocabulary_too_small_for_the_special_tokens_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    with pytest.raises(ModelLoadError, match="do not belong together"):
        read_v2_tokenizer(tmp_path, v2_config(vocab_size=N_PIECES + 4))
