"""GGUF models of random weights to measure speed with: what they say is noise, how fast is not.

Llama architecture, q8_0, 32,000 tokens of byte-level BPE. The vocabulary is made of syllables, not
trained, so that it is the same everywhere and every word of `words` is exactly one token: a text
of n words has n tokens in any server. Weights come from one seed; the same size gives the same
file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import gguf

VOCABULARY_SIZE = 32_000
CONTEXT_LENGTH = 8192
CONTROL_TOKENS = ("<unk>", "<s>", "</s>")
SYLLABLES = tuple(map("".join, product("bcdfghjklmnpqrstvwxz", "aeiou")))
# Part of the file's name: a cached model of an older recipe is not taken for a new one.
RECIPE = 1


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a llama model: widths in numbers, the vocabulary apart."""

    width: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int


SHAPES = {
    "25m": Shape(width=256, layers=8, feed_forward=768, heads=8, kv_heads=4),
    "200m": Shape(width=1024, layers=12, feed_forward=2816, heads=16, kv_heads=4),
}


def words() -> list[str]:
    """Return 10,000 words, each with the space before it, each one token."""
    return [" " + first + second for first, second in product(SYLLABLES, SYLLABLES)]


def ensure_model(size: str, folder: Path) -> Path:
    """Return the model of this size (a key of `SHAPES`) in `folder`; write it if it is not there.

    Needs the `gguf` package then, and for 200m about ten seconds.
    """
    path = folder / f"random-{size}-q8_0-{RECIPE}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        write_model(unfinished, SHAPES[size])
        unfinished.replace(path)
    return path


def write_model(path: Path, shape: Shape, seed: int = 0) -> None:
    """Write a model of this shape."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    _write_shape(writer, shape)
    _write_vocabulary(writer)
    _write_weights(writer, shape, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    import gguf

    writer.add_name("random")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY_SIZE)


def byte_alphabet() -> list[str]:
    """Return the character that stands for each byte in GPT-2's vocabularies."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def merges() -> Iterator[tuple[str, str]]:
    """Yield pairs by rank, without end in sight: syllables, pairs of them, words, longer words."""
    yield from ((s[0], s[1]) for s in SYLLABLES)
    yield from product(SYLLABLES, SYLLABLES)
    yield from (("Ġ", first + second) for first, second in product(SYLLABLES, SYLLABLES))
    for first, second, third in product(SYLLABLES, SYLLABLES, SYLLABLES):
        yield (first + second, third)


def _write_vocabulary(writer: gguf.GGUFWriter) -> None:
    import gguf

    alphabet = byte_alphabet()
    pairs = list(islice(merges(), VOCABULARY_SIZE - len(CONTROL_TOKENS) - len(alphabet)))
    types = [gguf.TokenType.NORMAL] * VOCABULARY_SIZE
    types[: len(CONTROL_TOKENS)] = [gguf.TokenType.CONTROL] * len(CONTROL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*CONTROL_TOKENS, *alphabet, *map("".join, pairs)])
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in pairs])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)


def _write_weights(writer: gguf.GGUFWriter, shape: Shape, rng: np.random.Generator) -> None:
    import gguf

    q8_0 = gguf.GGMLQuantizationType.Q8_0

    def add(name: str, rows: int, columns: int, scale: float, silent: int = 0) -> None:
        weights = rng.standard_normal((rows, columns), dtype=np.float32) * scale
        weights[:silent] = 0
        quantized = gguf.quants.quantize(weights, q8_0)
        writer.add_tensor(f"{name}.weight", quantized, raw_dtype=q8_0)

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))

    width, kv_width = shape.width, shape.width // shape.heads * shape.kv_heads
    scale = width**-0.5
    add("token_embd", VOCABULARY_SIZE, width, 0.5)
    # Neither a control token nor half a character is ever the likeliest: no answer ends early,
    # and every token shows as text.
    add("output", VOCABULARY_SIZE, width, 2.5 * scale, silent=len(CONTROL_TOKENS) + 256)
    add_norm("output_norm")
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        add_norm(f"{block}attn_norm")
        add_norm(f"{block}ffn_norm")
        for name, rows in (("q", width), ("k", kv_width), ("v", kv_width), ("output", width)):
            add(f"{block}attn_{name}", rows, width, scale)
        add(f"{block}ffn_gate", shape.feed_forward, width, scale)
        add(f"{block}ffn_up", shape.feed_forward, width, scale)
        add(f"{block}ffn_down", width, shape.feed_forward, shape.feed_forward**-0.5)
