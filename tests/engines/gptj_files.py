"""Legacy GGML files of tiny GPT-J models, and what such a model computes, both by hand.

Nothing here uses the product's code: it is what that is compared with.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.engines.tiny_gguf import byte_alphabet, train_merges

Array = NDArray[np.float32]
F32, F16, Q4_0, Q4_1 = 0, 1, 2, 3
END_OF_TEXT = b"<|endoftext|>"
WORDS = b"abcdefghijklmnopqrstuvwxyz "
CHARACTERS = {character: byte for byte, character in enumerate(byte_alphabet())}


def to_bytes(text: str) -> bytes:
    """Turn GPT-2's characters into the bytes they stand for."""
    return bytes(CHARACTERS[character] for character in text)


def small_vocabulary(n_unused: int = 7) -> tuple[bytes, ...]:
    """Bytes in GPT-2's order, merges, the end of text, and names that fill the rows up."""
    single = sorted(CHARACTERS)
    merged = ["".join(pair) for pair in train_merges()]
    unused = [f"<|extratoken_{number}|>".encode() for number in range(1, n_unused + 1)]
    return (*map(to_bytes, single), *map(to_bytes, merged), END_OF_TEXT, *unused)


def bytes_vocabulary(size: int = 50400) -> tuple[bytes, ...]:
    """A vocabulary of the real size in which words are spelled byte by byte: one merge, "!!"."""
    single = tuple(map(to_bytes, sorted(CHARACTERS)))
    fill = tuple(f"<|x{number}|>".encode() for number in range(size))
    return (*single, b"!!", *fill[257:50256], END_OF_TEXT, *fill[50257:])


@dataclass(frozen=True)
class GPTJ:
    """A model. The likeliest token is always one of small letters and spaces."""

    vocabulary: tuple[bytes, ...] = field(default_factory=small_vocabulary)
    n_ctx: int = 256
    n_embd: int = 64
    n_head: int = 4
    n_layer: int = 2
    n_rot: int = 8
    seed: int = 65  # of 150, the one whose likeliest tokens are the furthest from the second ones

    def weights(self) -> dict[str, Array]:
        """Random weights by their names in the file, each outermost first."""
        rng, d, n = np.random.default_rng(self.seed), self.n_embd, len(self.vocabulary)

        def normal(*shape: int, scale: float = 0.1, mean: float = 0.0) -> Array:
            return (mean + scale * rng.standard_normal(shape)).astype(np.float32)

        weights = {
            "transformer.wte.weight": normal(n, d, scale=1.0),
            "transformer.ln_f.weight": normal(d, mean=1.0),
            "transformer.ln_f.bias": normal(d),
            "lm_head.weight": normal(n, d, scale=1.0),
            "lm_head.bias": normal(n) - 100 * self._is_odd(),
        }
        for layer in range(self.n_layer):
            block = f"transformer.h.{layer}."
            weights |= {
                f"{block}ln_1.weight": normal(d, mean=1.0),
                f"{block}ln_1.bias": normal(d),
                f"{block}mlp.fc_in.weight": normal(4 * d, d, scale=1.5 * d**-0.5),
                f"{block}mlp.fc_in.bias": normal(4 * d),
                f"{block}mlp.fc_out.weight": normal(d, 4 * d, scale=1.5 * (4 * d) ** -0.5),
                f"{block}mlp.fc_out.bias": normal(d),
            }
            for name in "qkv":
                weights[f"{block}attn.{name}_proj.weight"] = normal(d, d, scale=2 * d**-0.5)
            weights[f"{block}attn.out_proj.weight"] = normal(d, d, scale=2 * d**-0.5)
        return weights

    def _is_odd(self) -> Array:
        return np.array([not set(token) <= set(WORDS) for token in self.vocabulary], np.float32)

    def pack(self, kind: int = F32, version: int = 0, **changes: int) -> bytes:
        """Return the file; `changes` replace numbers of its header."""
        return self.header(**({"ftype": 1000 * version + kind} | changes)) + b"".join(
            pack_tensor(name, array, kind if array.ndim == 2 else F32, version)
            for name, array in self.weights().items()
        )

    def header(self, **changes: int) -> bytes:
        """Return what stands before the tensors."""
        numbers = {
            "n_vocab": len(self.vocabulary),
            "n_ctx": self.n_ctx,
            "n_embd": self.n_embd,
            "n_head": self.n_head,
            "n_layer": self.n_layer,
            "n_rot": self.n_rot,
            "ftype": F32,
            "repeated": len(self.vocabulary),
        } | changes
        tokens = b"".join(struct.pack("<I", len(token)) + token for token in self.vocabulary)
        return struct.pack("<I8i", 0x67676D6C, *numbers.values()) + tokens

    def encode(self, text: str) -> list[int]:
        """Tokenise words of letters with single spaces between them, as GPT-2 does."""
        ids: list[int] = []
        for i, word in enumerate(text.split(" ")):
            ids += self._encode_word((" " * (i > 0) + word).encode())
        return ids

    def _encode_word(self, word: bytes) -> list[int]:
        merges = [tuple(map(to_bytes, pair)) for pair in train_merges()]
        ranks = {pair: i for i, pair in enumerate(merges) if b"".join(pair) in self.vocabulary}
        pieces = [word[i : i + 1] for i in range(len(word))]
        while known := [pair for pair in pairwise(pieces) if pair in ranks]:
            left, right = min(known, key=ranks.__getitem__)
            at = next(i for i, pair in enumerate(pairwise(pieces)) if pair == (left, right))
            pieces[at : at + 2] = [left + right]
        return [self.vocabulary.index(piece) for piece in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens."""
        return b"".join(self.vocabulary[token] for token in ids).decode()

    def greedy(
        self, prompt: Sequence[int], n: int, weights: Mapping[str, Array] | None = None
    ) -> tuple[list[int], float]:
        """Return the likeliest tokens after a prompt, and how far the nearest second one was."""
        weights, ids, gaps = weights or self.weights(), list(prompt), []
        for _ in range(n):
            row = self.logits(weights, ids)[-1]
            second, first = np.sort(row)[-2:]
            gaps.append(float(first - second))
            ids.append(int(row.argmax()))
        return ids[len(prompt) :], min(gaps)

    def logits(self, weights: Mapping[str, Array], ids: Sequence[int]) -> Array:
        """Run the model over tokens; a row of logits for each."""
        x = weights["transformer.wte.weight"][list(ids)]
        for layer in range(self.n_layer):
            block = f"transformer.h.{layer}."
            w = {k.removeprefix(block): v for k, v in weights.items() if k.startswith(block)}
            normed = _norm(x, w["ln_1.weight"], w["ln_1.bias"])
            x = x + self._attention(normed, w) + _mlp(normed, w)
        x = _norm(x, weights["transformer.ln_f.weight"], weights["transformer.ln_f.bias"])
        result: Array = x @ weights["lm_head.weight"].T + weights["lm_head.bias"]
        return result

    def _attention(self, x: Array, w: Mapping[str, Array]) -> Array:
        n, head_size = len(x), self.n_embd // self.n_head
        q, k, v = (
            (x @ w[f"attn.{name}_proj.weight"].T).reshape(n, self.n_head, head_size)
            for name in "qkv"
        )
        scores = np.einsum("ihd,jhd->hij", self._rotated(q), self._rotated(k)) / head_size**0.5
        scores[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", shares, v).reshape(n, self.n_embd)
        result: Array = mixed @ w["attn.out_proj.weight"].T
        return result

    def _rotated(self, x: Array) -> Array:
        """Rotary embedding of GPT-J: neighbours are the coordinates of a point."""
        speeds = 10000.0 ** (-np.arange(0, self.n_rot, 2) / self.n_rot)
        turns = np.exp(1j * np.arange(len(x))[:, None] * speeds)[:, None]
        points = (x[..., 0 : self.n_rot : 2] + 1j * x[..., 1 : self.n_rot : 2]) * turns
        y = x.copy()
        y[..., 0 : self.n_rot : 2], y[..., 1 : self.n_rot : 2] = points.real, points.imag
        return y


def _norm(x: Array, weight: Array, bias: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    result: Array = centred / np.sqrt(x.var(-1, keepdims=True) + np.float32(1e-5)) * weight + bias
    return result


def _mlp(x: Array, w: Mapping[str, Array]) -> Array:
    y = x @ w["mlp.fc_in.weight"].T + w["mlp.fc_in.bias"]
    y = 0.5 * y * (1 + np.tanh((2 / np.pi) ** 0.5 * (y + 0.044715 * y**3)))
    result: Array = y @ w["mlp.fc_out.weight"].T + w["mlp.fc_out.bias"]
    return result


def pack_tensor(name: str, array: Array, kind: int, version: int = 0) -> bytes:
    """Return a tensor as it stands in the file."""
    head = struct.pack("<3i", array.ndim, len(name), kind)
    head += struct.pack(f"<{array.ndim}i", *reversed(array.shape)) + name.encode()
    match kind:
        case 0:
            return head + array.astype("<f4").tobytes()
        case 1:
            return head + array.astype("<f2").tobytes()
    scales, numbers = quantise(array, kind)
    halves = numbers[:, 0::2] | numbers[:, 1::2] << 4  # the original order: neighbours
    if version == 2:
        scales, halves = scales.astype("<f2"), numbers[:, :16] | numbers[:, 16:] << 4
    return head + np.hstack([scales.view(np.uint8), halves]).tobytes()


def quantise(array: Array, kind: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return, a row for each 32 values, their scale (q4_1: and minimum) and numbers 0 to 15."""
    blocks = array.reshape(-1, 32)
    if kind == Q4_0:
        scale = np.abs(blocks).max(1, keepdims=True) / 7
        return scale.astype("<f4"), (np.round(blocks / scale) + 8).astype(np.uint8)
    minimum = blocks.min(1, keepdims=True)
    scale = (blocks.max(1, keepdims=True) - minimum) / 15
    numbers = np.round((blocks - minimum) / scale).astype(np.uint8)
    return np.hstack([scale, minimum]).astype("<f4"), numbers


def stored(weights: Mapping[str, Array], kind: int) -> dict[str, Array]:
    """Return what a file of that kind holds of the weights."""
    return {k: _stored(v, kind) if v.ndim == 2 else v for k, v in weights.items()}


def _stored(array: Array, kind: int) -> Array:
    if kind in (F32, F16):
        return array.astype("<f2" if kind == F16 else "<f4").astype(np.float32)
    scales, numbers = quantise(array, kind)
    values = (numbers - 8.0) * scales if kind == Q4_0 else numbers * scales[:, :1] + scales[:, 1:]
    result: Array = values.astype(np.float32).reshape(array.shape)
    return result
