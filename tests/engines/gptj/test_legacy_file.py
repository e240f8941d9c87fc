"""Reading legacy files: all that they say, and no damage that goes unnoticed."""

from __future__ import annotations

import math
import os
import random
import struct
from pathlib import Path

import pytest

from engines.errors import ModelLoadError
from engines.gptj.legacy_file import Shape, expected_tensors, read_legacy
from tests.engines.gptj_files import F16, F32, GPTJ, Q4_0, Q4_1, pack_tensor

MODEL = GPTJ(n_embd=32, n_layer=1)
HEADER_WORDS = 9


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "ggml-gpt4all-j-v1.3-groovy.bin"
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        read_legacy(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "version"), [(F32, 0), (F16, 0), (Q4_0, 0), (Q4_1, 0), (Q4_0, 2), (Q4_1, 2)]
)
def test_what_a_file_says(tmp_path: Path, kind: int, version: int) -> None:
    file = read_legacy(written(tmp_path, MODEL.pack(kind, version)))
    shape = file.shape
    assert (shape.n_vocab, shape.n_ctx, shape.n_embd) == (len(MODEL.vocabulary), 256, 32)
    assert (shape.n_head, shape.n_layer, shape.n_rot, shape.head_size) == (4, 1, 8, 8)
    assert file.vocabulary == MODEL.vocabulary
    weights = MODEL.weights()
    assert {t.name: t.dimensions[::-1] for t in file.tensors.values()} == {
        name: array.shape for name, array in weights.items()
    }
    content = file.path.read_bytes()
    for name, tensor in file.tensors.items():
        array = weights[name]
        packed = pack_tensor(name, array, kind if array.ndim == 2 else F32, version)
        assert packed.endswith(content[tensor.offset : tensor.offset + tensor.size])
        assert tensor.type == (kind if array.ndim == 2 else F32)


def test_the_published_file_has_the_size_of_this_format() -> None:
    # ggml-gpt4all-j-v1.3-groovy.bin: the tensors that its header promises, and before them the
    # 50,257 tokens of GPT-2 and <|extratoken_1|> to <|extratoken_143|>, 524,893 bytes in all.
    shape = Shape(50400, 2048, 4096, 16, 28, 64, Q4_0)
    size = 4 * HEADER_WORDS + 524_893
    for name, dimensions in expected_tensors(shape).items():
        values, is_matrix = math.prod(dimensions), len(dimensions) == 2
        data = values // 32 * 20 if is_matrix else values * 4
        size += 12 + 4 * len(dimensions) + len(name) + data
    assert size == 3_785_248_281


def test_truncated_anywhere(tmp_path: Path) -> None:
    content = MODEL.pack(Q4_0)
    path = written(tmp_path, content)
    file = read_legacy(path)
    cuts = {*range(64), len(content) - 1}
    for tensor in file.tensors.values():
        begin = tensor.offset - len(tensor.name) - 4 * len(tensor.dimensions) - 12
        end = tensor.offset + tensor.size
        cuts |= {begin - 1, begin, begin + 1, begin + 12, tensor.offset - 1, tensor.offset}
        cuts |= {tensor.offset + 1, end - 1}
    rng = random.Random(1)
    cuts |= {rng.randrange(len(content)) for _ in range(100)}
    for cut in sorted(cuts, reverse=True):
        os.truncate(path, cut)
        assert "truncated" in refusal(path), cut


@pytest.mark.parametrize("seed", range(10))
def test_damaged_anywhere(tmp_path: Path, seed: int) -> None:
    content, rng = MODEL.pack(Q4_0), random.Random(seed)
    for _ in range(30):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(4, 6000)] = rng.randrange(256)
        path = written(tmp_path, bytes(damaged))
        try:
            read_legacy(path)
        except ModelLoadError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_vocab": 0, "repeated": 0}, "not of GPT-J"),
        ({"repeated": 5}, "not of GPT-J"),
        ({"n_vocab": 2**31 - 1, "repeated": 2**31 - 1}, "n_vocab is 2147483647"),
        ({"n_vocab": 2**20, "repeated": 2**20}, "is damaged: token"),
        ({"n_ctx": 0}, "n_ctx is 0"),
        ({"n_ctx": -1}, "n_ctx is -1"),
        ({"n_embd": 2**30}, "n_embd is"),
        ({"n_head": 0}, "n_head is 0"),
        ({"n_head": 5}, "5 heads"),
        ({"n_layer": 10_000}, "n_layer is"),
        ({"n_layer": 2}, "tensors are missing"),
        ({"n_rot": 7}, "7 of 8"),
        ({"n_rot": 0}, "0 of 8"),
        ({"n_rot": 10}, "10 of 8"),
        ({"n_embd": 64}, "should be"),
        ({"ftype": 1002}, "ftype 1002"),
        ({"ftype": -1}, "ftype -1"),
        ({"ftype": 2**31 - 1}, "cannot be converted"),
    ],
    ids=str,
)
def test_wrong_numbers_in_the_header(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    assert message in refusal(written(tmp_path, MODEL.pack(**changes)))


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ((*MODEL.vocabulary[:-1], b"a"), "are the same"),
        ((*MODEL.vocabulary[:-1], b"x" * 2000), "has 2000 bytes"),
        (tuple(f"{number:0200}".encode() for number in range(50_000)), "above 8388608 bytes"),
        (MODEL.vocabulary[:256], "'<|endoftext|>'"),
    ],
    ids=["twice", "long token", "long", "no end"],
)
def test_wrong_vocabularies(tmp_path: Path, vocabulary: tuple[bytes, ...], message: str) -> None:
    model = GPTJ(vocabulary=vocabulary, n_embd=32, n_layer=1)
    assert message in refusal(written(tmp_path, model.pack()))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (struct.pack("<3i", 1, 0, 0), "where a tensor should begin"),
        (struct.pack("<3i", 1, 10_000, 0), "where a tensor should begin"),
        (struct.pack("<3i", -1, 5, 0), "where a tensor should begin"),
        (struct.pack("<3i", 3, 5, 0), "where a tensor should begin"),
        (struct.pack("<3ii", 1, 5, 0, 3) + b"hello", "'hello'"),
        (struct.pack("<3ii", 1, 5, 0, 3) + b"\xff\xfe\x00\n\x1b", r"'\\xff\\xfe\x00\n\x1b'"),
        (struct.pack("<3ii", 1, 12, 0, 3) + b"lm_head.bias", "twice"),
        (b"x", "truncated"),
    ],
)
def test_something_behind_the_last_tensor(tmp_path: Path, extra: bytes, message: str) -> None:
    assert message in refusal(written(tmp_path, MODEL.pack() + extra))


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("lm_head.weight", 9, "in the format 9"),
        ("lm_head.weight", -1, "in the format -1"),
        ("lm_head.weight", 8, "in the format 8"),  # q8_0 came with version 2
        ("lm_head.bias", Q4_0, "in the format 2"),  # a vector
    ],
)
def test_wrong_tensor_types(tmp_path: Path, name: str, kind: int, message: str) -> None:
    array = MODEL.weights()[name]
    head = struct.pack("<3i", array.ndim, len(name), kind)
    head += struct.pack(f"<{array.ndim}i", *array.shape[::-1]) + name.encode()
    assert message in refusal(written(tmp_path, MODEL.header() + head + bytes(10_000)))


def test_rows_of_no_whole_blocks(tmp_path: Path) -> None:
    model, name = GPTJ(n_embd=48, n_rot=4), "lm_head.weight"
    head = struct.pack("<5i", 2, len(name), Q4_0, 48, len(model.vocabulary)) + name.encode()
    content = model.header() + head + bytes(100_000)
    assert "no whole blocks" in refusal(written(tmp_path, content))


def test_files_of_other_models(tmp_path: Path) -> None:
    # GPT-2: six numbers, then the size of the vocabulary again. LLaMA: seven, then a token.
    gpt2 = struct.pack("<I7i", 0x67676D6C, 50257, 1024, 768, 12, 12, 2, 50257) + bytes(100)
    llama = struct.pack("<I7iI", 0x67676D6C, 32000, 4096, 256, 32, 32, 128, 2, 5) + bytes(100)
    for content in (gpt2, llama):
        message = refusal(written(tmp_path, content))
        assert "before August 2023" in message
        assert "not of GPT-J" in message


def test_no_such_file(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "none.bin")
    assert "is not a GGML file" in refusal(written(tmp_path, b"GGUF" + bytes(100)))
