from __future__ import annotations

import os
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.errors import ModelLoadError
from engines.gguf import MAX_ARRAY, SkippedArray, read_gguf
from tests.engines.gguf_files import GGUF, Tensor, string

GOOD = GGUF()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_reads_metadata_and_tensors(path: Path) -> None:
    header = read_gguf(GOOD.write(path))
    assert header.version == 3
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["llama.context_length"] == 512
    assert header.metadata["tokenizer.ggml.tokens"] == SkippedArray(5)
    (tensor,) = header.tensors
    assert (tensor.name, tensor.dimensions, tensor.size) == ("token_embd.weight", (32, 4), 512)
    assert header.data_offset + 512 == header.file_size


def test_reads_the_arrays_that_are_asked_for(path: Path) -> None:
    keys = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")
    metadata = read_gguf(GOOD.write(path), arrays=keys).metadata
    assert metadata[keys[0]] == ("<s>", "</s>", "a", "<user>", "<|end|>")
    assert metadata[keys[1]] == (3, 3, 1, 4, 3)


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_respects_the_files_alignment(path: Path, alignment: int) -> None:
    file = replace(GOOD, metadata={"general.alignment": alignment}, data=bytes(4096 + 512))
    header = read_gguf(file.write(path))
    assert header.data_offset % alignment == 0


def entry(key: str, kind: int, content: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + content


def with_entry(key: str, kind: int, content: bytes) -> GGUF:
    return GGUF(metadata={}, n_metadata=1, extra_metadata=entry(key, kind, content))


def with_tensor(*tensors: Tensor) -> GGUF:
    return replace(GOOD, tensors=tensors)


BAD: dict[str, tuple[bytes | GGUF, str]] = {
    "empty": (b"", "truncated"),
    "only the magic": (b"GGUF", "truncated"),
    "another format": (replace(GOOD, magic=b"PK\3\4"), "not a GGUF file"),
    "version 1": (replace(GOOD, version=1), "version 1"),
    "version 9": (replace(GOOD, version=9), "version 9"),
    "big-endian": (replace(GOOD, version=0x03000000), "big-endian"),
    "too many tensors": (replace(GOOD, n_tensors=2**40), "tensors"),
    "too much metadata": (replace(GOOD, n_metadata=2**63), "metadata"),
    "more metadata than there is": (replace(GOOD, n_metadata=60_000), "damaged|truncated"),
    "more tensors than there are": (replace(GOOD, n_tensors=60_000), "damaged|truncated|format"),
    "cut in the header": (GOOD.pack()[:100], "truncated"),
    "cut in the weights": (GOOD.pack()[:-1], r"promises \d+ bytes, the file has \d+; download"),
    "a huge string": (with_entry("k", 8, struct.pack("<Q", 2**62)), "a string of"),
    "a huge key": (GGUF(n_metadata=1, metadata={}, extra_metadata=b"\xff" * 8), "a string of"),
    "a huge array of strings": (with_entry("k", 9, struct.pack("<IQ", 8, 2**61)), "an array of"),
    "a huge string in an array": (
        with_entry("k", 9, struct.pack("<IQQ", 8, 1, 2**63)),
        "a string of",
    ),
    "a huge array of numbers": (with_entry("k", 9, struct.pack("<IQ", 4, 2**62)), "truncated"),
    "an array of arrays": (with_entry("k", 9, struct.pack("<IQ", 9, 1)), "unknown type 9"),
    "an unknown type": (with_entry("k", 13, b""), "unknown type 13"),
    "an alignment of 0": (replace(GOOD, metadata={"general.alignment": 0}), "power of two"),
    "an alignment of 48": (replace(GOOD, metadata={"general.alignment": 48}), "power of two"),
    "an alignment in words": (replace(GOOD, metadata={"general.alignment": "x"}), "power of two"),
    "a key twice": (
        GGUF(metadata={"k": 1}, n_metadata=2, extra_metadata=entry("k", 4, bytes(4))),
        "stands twice",
    ),
    "a tensor twice": (with_tensor(Tensor(), Tensor()), "same name"),
    "no dimensions": (with_tensor(Tensor(dimensions=())), "0 dimensions"),
    "five dimensions": (with_tensor(Tensor(dimensions=(32, 1, 1, 1, 1))), "5 dimensions"),
    "a dimension of 0": (with_tensor(Tensor(dimensions=(32, 0))), "shape"),
    "a product above 2^63": (with_tensor(Tensor(dimensions=(2**40, 2**40))), "shape"),
    "a product that wraps to 0": (with_tensor(Tensor(dimensions=(2**32, 2**32))), "shape"),
    "an unknown tensor type": (with_tensor(Tensor(type=99)), "format 99"),
    "a removed tensor type": (with_tensor(Tensor(type=4)), "format 4"),
    "half a block": (with_tensor(Tensor(dimensions=(33, 1), type=8)), "whole blocks of 32"),
    "an offset off the boundary": (with_tensor(Tensor(offset=1)), "boundary"),
    "an offset behind the end": (with_tensor(Tensor(offset=2**63 - 32)), "truncated"),
    "a tensor larger than the file": (with_tensor(Tensor(dimensions=(2**40,))), "truncated"),
}


@pytest.mark.parametrize("kind", BAD)
def test_refuses_what_is_wrong_and_names_the_file(path: Path, kind: str) -> None:
    content, message = BAD[kind]
    path.write_bytes(content if isinstance(content, bytes) else content.pack())
    with pytest.raises(ModelLoadError, match=message) as caught:
        read_gguf(path)
    assert str(path) in str(caught.value)


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="not a regular file"):
        read_gguf(tmp_path)
    with pytest.raises(ModelLoadError, match="does not exist"):
        read_gguf(tmp_path / "none.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelLoadError, match="not a regular file"):
        read_gguf(tmp_path / "pipe.gguf")


MUTATION = settings(
    max_examples=500,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)


@MUTATION
@given(st.data())
def test_flipped_bytes_raise_nothing_but_a_load_error(path: Path, data: st.DataObject) -> None:
    content = bytearray(GOOD.pack())
    places = st.integers(0, len(content) - 513)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(places)] = data.draw(st.integers(0, 255))
    read_or_refuse(path, bytes(content))


@MUTATION
@given(content=st.binary(max_size=300), cut=st.integers(0, 600))
def test_garbage_raises_nothing_but_a_load_error(path: Path, content: bytes, cut: int) -> None:
    read_or_refuse(path, GOOD.pack()[:cut] + content)


def read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        header = read_gguf(path, arrays=("tokenizer.ggml.tokens", "tokenizer.ggml.token_type"))
    except ModelLoadError as error:
        assert str(path) in str(error)
    else:
        ends = (header.data_offset + tensor.offset + tensor.size for tensor in header.tensors)
        assert max(ends, default=0) <= len(content)


@pytest.mark.parametrize("length", [MAX_ARRAY + 1, 2**64 - 1])
def test_an_array_of_too_many_numbers_is_not_unpacked(path: Path, length: int) -> None:
    extra = string("types") + struct.pack("<IIQ", 9, 0, length)
    file = replace(GOOD, metadata={}, n_metadata=1, extra_metadata=extra).write(path)
    with pytest.raises(ModelLoadError, match="numbers"):
        read_gguf(file, arrays=("types",))
    with pytest.raises(ModelLoadError, match="truncated"):
        read_gguf(file)


def test_a_header_beyond_the_first_read_is_read_whole(path: Path) -> None:
    tokens = [f"token {number}" for number in range(128_000)]
    metadata = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": tokens}
    file = replace(GOOD, metadata=metadata).write(path)
    header = read_gguf(file, arrays=("tokenizer.ggml.tokens",))
    assert header.metadata["tokenizer.ggml.tokens"] == tuple(tokens)
    assert header.metadata["tokenizer.ggml.merges"] == SkippedArray(128_000)


def test_the_size_of_the_weights_does_not_matter(path: Path) -> None:
    big = replace(GOOD, tensors=(Tensor(dimensions=(2**20, 10_000)),), data=b"").write(path)
    os.truncate(big, 41_000_000_000 + 2**30)  # sparse: takes no room
    started = time.process_time()
    assert read_gguf(big).tensors[0].size == 41_943_040_000
    assert time.process_time() - started < 0.2


def test_a_header_above_the_cap_is_refused(path: Path) -> None:
    many = struct.pack("<IQ", 8, 100) + (struct.pack("<Q", 2**20) + bytes(2**20)) * 100
    with_entry("k", 9, many).write(path)
    with pytest.raises(ModelLoadError, match="header above"):
        read_gguf(path)
