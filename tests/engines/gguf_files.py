"""Writes GGUF files by hand, so that every field of theirs can be wrong."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Value = bool | int | float | str | Sequence[int] | Sequence[str]


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def value(content: Value) -> bytes:
    match content:
        case bool():
            return struct.pack("<I?", 7, content)
        case int():
            return struct.pack("<II", 4, content)
        case float():
            return struct.pack("<If", 6, content)
        case str():
            return struct.pack("<I", 8) + string(content)
    if content and isinstance(content[0], str):
        texts = b"".join(string(str(text)) for text in content)
        return struct.pack("<IIQ", 9, 8, len(content)) + texts
    return struct.pack(f"<IIQ{len(content)}i", 9, 5, len(content), *content)


@dataclass(frozen=True)
class Tensor:
    name: str = "token_embd.weight"
    dimensions: tuple[int, ...] = (32, 4)
    type: int = 0
    offset: int = 0

    def pack(self) -> bytes:
        n = len(self.dimensions)
        place = struct.pack(f"<I{n}QIQ", n, *self.dimensions, self.type, self.offset)
        return string(self.name) + place


@dataclass(frozen=True)
class GGUF:
    """A whole file; `n_metadata` and `n_tensors` may lie."""

    metadata: Mapping[str, Value] = field(
        default_factory=lambda: {
            "general.architecture": "llama",
            "llama.context_length": 512,
            "tokenizer.chat_template": "{{ messages }}",
            "tokenizer.ggml.tokens": ["<s>", "</s>", "a", "<user>", "<|end|>"],
            "tokenizer.ggml.token_type": [3, 3, 1, 4, 3],
            "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.eos_token_id": 1,
        }
    )
    tensors: tuple[Tensor, ...] = (Tensor(),)
    magic: bytes = b"GGUF"
    version: int = 3
    n_metadata: int | None = None
    n_tensors: int | None = None
    extra_metadata: bytes = b""
    data: bytes = bytes(512)

    def pack(self) -> bytes:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_metadata = len(self.metadata) if self.n_metadata is None else self.n_metadata
        header = self.magic + struct.pack("<IQQ", self.version, n_tensors, n_metadata)
        header += b"".join(string(key) + value(content) for key, content in self.metadata.items())
        header += self.extra_metadata + b"".join(tensor.pack() for tensor in self.tensors)
        return header + bytes(-len(header) % 32) + self.data

    def write(self, path: Path) -> Path:
        path.write_bytes(self.pack())
        return path
