"""Makes a GGUF file of a legacy one, as the architecture "phi2" that llama.cpp has code for.

GPT-J itself is only a name in llama.cpp, but a block of phi2 computes the same: one norm, then
attention and MLP beside each other, GELU (tanh), a bias on the output. Two things differ: phi2
has a bias on the attention's output, which is zero here, and it rotates the halves of a key or
query against each other where GPT-J rotates neighbours, so the rows of those matrices change
places. Quantised weights are re-packed, not quantised again (`blocks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from engines.errors import ModelLoadError
from engines.gguf_header import NewTensor, Value, pack_header, padding
from engines.gptj.blocks import ScaleOutOfRange
from engines.gptj.legacy_file import END_OF_TEXT, F32, LegacyFile, LegacyTensor
from engines.gptj.rows import converted_rows, target_of
from engines.gptj.vocabulary import recover_merges, token_text, token_types

# What transformers' GPTJConfig has too; GPT-J was never trained with others.
NORM_EPSILON, ROPE_BASE = 1e-5, 10000.0

_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "attn.q_proj": "attn_q",
    "attn.k_proj": "attn_k",
    "attn.v_proj": "attn_v",
    "attn.out_proj": "attn_output",
    "mlp.fc_in": "ffn_up",
    "mlp.fc_out": "ffn_down",
}
_BLOCK = "transformer.h."

Progress = Callable[[int, int], None]
"""Called with the bytes written so far and those to write in all."""


class Conversion:
    """The plan of a GGUF file: its `size` in bytes is exact before anything is written.

    Raises `ModelLoadError` for a vocabulary that is no byte-level BPE one.
    """

    def __init__(self, file: LegacyFile, extra_metadata: Mapping[str, Value]) -> None:
        self._file = file
        self._steps = list(_plan(file))
        metadata = _metadata(file) | dict(extra_metadata)
        self._header = pack_header(metadata, [target for target, _ in self._steps])
        sizes = [target.size for target, _ in self._steps]
        self.size = len(self._header) + sum(size + padding(size) for size in sizes)

    def write(self, target: BinaryIO, on_progress: Progress) -> None:
        """Write the file, some megabytes at a time.

        Raises `OSError` when the target cannot be written, and `ModelLoadError` for all that is
        wrong with the source.
        """
        written = target.write(self._header)
        for chunk in self._chunks():
            written += target.write(chunk)
            on_progress(written, self.size)

    def _chunks(self) -> Iterator[bytes | memoryview]:
        with _Source(self._file.path) as source:
            for target, legacy in self._steps:
                if legacy is None:
                    yield bytes(target.size)
                else:
                    yield from self._convert(legacy, source)
                yield bytes(padding(target.size))

    def _convert(self, tensor: LegacyTensor, source: _Source) -> Iterator[memoryview]:
        source.seek(tensor.offset)
        try:
            for rows in converted_rows(tensor, self._file.shape, source.read):
                yield rows.data
        except ScaleOutOfRange as error:
            raise ModelLoadError(
                f"{self._file.path}: {tensor.name} cannot be converted: the scale of a block is "
                "above 65504, or no number. The file is damaged; download it again"
            ) from error


class _Source:
    """The legacy file's data; whatever goes wrong with them is a `ModelLoadError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Source:
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise self._unreadable(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, offset: int) -> None:
        self._file.seek(offset)

    def read(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise self._unreadable(error) from error
        if len(data) < size:
            raise ModelLoadError(f"{self._path} became shorter while it was read")
        return data

    def _unreadable(self, error: OSError) -> ModelLoadError:
        return ModelLoadError(f"{self._path} cannot be read: {error.strerror}")


def _plan(file: LegacyFile) -> Iterator[tuple[NewTensor, LegacyTensor | None]]:
    """Yield each tensor to write with the one to make it of; without one it is all zeros."""
    width = file.shape.n_embd
    for tensor in file.tensors.values():
        yield target_of(_new_name(tensor.name), tensor, file.shape), tensor
    for layer in range(file.shape.n_layer):
        yield NewTensor(f"blk.{layer}.attn_output.bias", (width,), F32, 4 * width), None


def _new_name(name: str) -> str:
    prefix = ""
    if name.startswith(_BLOCK):
        layer, _, name = name.removeprefix(_BLOCK).partition(".")
        prefix = f"blk.{layer}."
    stem, _, kind = name.rpartition(".")
    return f"{prefix}{_NAMES[stem]}.{kind}"


def _metadata(file: LegacyFile) -> dict[str, Value]:
    shape, end = file.shape, file.vocabulary.index(END_OF_TEXT)
    merges = recover_merges(file.vocabulary)
    if not merges:
        raise ModelLoadError(f"{file.path} cannot be converted: no token is made of two others")
    return {
        "general.architecture": "phi2",
        "general.name": file.path.stem,
        "general.file_type": shape.ftype % 1000,
        "general.quantization_version": 2,
        "phi2.context_length": shape.n_ctx,
        "phi2.embedding_length": shape.n_embd,
        "phi2.feed_forward_length": 4 * shape.n_embd,
        "phi2.block_count": shape.n_layer,
        "phi2.attention.head_count": shape.n_head,
        "phi2.attention.head_count_kv": shape.n_head,
        "phi2.attention.layer_norm_epsilon": NORM_EPSILON,
        "phi2.rope.dimension_count": shape.n_rot,
        "phi2.rope.freq_base": ROPE_BASE,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [token_text(token) for token in file.vocabulary],
        "tokenizer.ggml.token_type": token_types(file.vocabulary),
        "tokenizer.ggml.merges": [" ".join(map(token_text, pair)) for pair in merges],
        "tokenizer.ggml.bos_token_id": end,
        "tokenizer.ggml.eos_token_id": end,
        "tokenizer.ggml.add_bos_token": False,
    }
