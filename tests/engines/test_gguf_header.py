"""GGUF headers: what is written is what our reader and the gguf package read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.gguf import read_gguf
from engines.gguf_header import NewTensor, Value, pack_header, padding

METADATA: dict[str, Value] = {
    "general.architecture": "phi2",
    "a.number": 2**32 - 1,
    "a.fraction": 0.5,
    "a.yes": True,
    "a.no": False,
    "a.text": "ça va?",
    "some.texts": ["Ġthe", "", "日本"],
    "some.numbers": [1, -3, 5],
    "no.numbers": [],
}
TENSORS = (
    NewTensor("a", (3,), 0, 12),
    NewTensor("b", (32, 2), 2, 36),
    NewTensor("c", (2, 2), 1, 8),
)


def written(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    data = b"".join(bytes(t.size) + bytes(padding(t.size)) for t in TENSORS)
    path.write_bytes(pack_header(METADATA, TENSORS) + data)
    return path


def test_our_reader_reads_it(tmp_path: Path) -> None:
    header = read_gguf(written(tmp_path), arrays=METADATA.keys())
    expected = {k: tuple(v) if isinstance(v, list) else v for k, v in METADATA.items()}
    assert header.metadata == expected
    places = [(t.name, t.dimensions, t.type, t.size) for t in header.tensors]
    assert places == [(t.name, t.dimensions, t.type, t.size) for t in TENSORS]
    assert [t.offset for t in header.tensors] == [0, 32, 96]
    assert header.data_offset % 32 == 0


def test_the_gguf_package_reads_it(tmp_path: Path) -> None:
    gguf: Any = pytest.importorskip("gguf", reason="gguf is not installed")
    reader = gguf.GGUFReader(written(tmp_path))
    read = {name: field.contents() for name, field in reader.fields.items()}
    assert {key: read[key] for key in METADATA if key != "no.numbers"} == {
        key: value for key, value in METADATA.items() if key != "no.numbers"
    }
    assert [(t.name, tuple(t.shape), int(t.n_bytes)) for t in reader.tensors] == [
        (t.name, t.dimensions, t.size) for t in TENSORS
    ]
    assert np.array_equal(reader.tensors[0].data, np.zeros(3, np.float32))


def test_a_name_that_is_no_text_is_written_all_the_same() -> None:
    assert b"a?b" in pack_header({"general.name": "a\udcffb"}, ())
