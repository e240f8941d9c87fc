from __future__ import annotations

import pytest

from adapters.builtin.names import telling_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Vicuna_13B v1.5", "vicuna-13b-v1.5"),
        ("lmsys/vicuna", "vicuna"),
        ("/a/vicuna/model.gguf", "vicuna"),
        ("/a/vicuna/ggml-model-q4_k_m.gguf", "vicuna"),
        ("/a/vicuna/model-00001-of-00003.safetensors", "vicuna"),
        ("/a/vicuna/Q4_0.gguf", "vicuna"),
        ("/a/vicuna/fp16", "vicuna"),
        ("/a/vicuna/checkpoint-1200", "vicuna"),
        ("/hf/models--lmsys--vicuna/snapshots/0123abcdef", "vicuna"),
        ("/vicuna/other.gguf", "other.gguf"),
        ("/vicuna/model-other.gguf", "model-other.gguf"),
        ("snapshots", ""),
        ("", ""),
    ],
)
def test_telling_name(path: str, name: str) -> None:
    assert telling_name(path) == name
