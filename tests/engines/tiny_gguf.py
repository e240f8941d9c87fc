"""A GGUF file of random weights for tests: a few hundred kilobytes, the same for each seed.

Byte-level BPE, so that every text can be tokenised; a few merges from a small corpus, so that
words are tokens while most characters beyond ASCII stay split over several.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

CONTEXT_LENGTH = 512
CONTROL_TOKENS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
USER_DEFINED_TOKEN = "<|user|>"
N_MERGES = 120
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    "{# Longer than the buffers that readers of metadata like to start with: 256 bytes. #}"
)
_WIDTH, _LAYERS, _FEED_FORWARD, _HEADS, _KV_HEADS = 64, 2, 128, 4, 2

_CORPUS = (
    "the quick brown fox jumps over the lazy dog and then the dog sleeps in the sun while "
    "another fox thinks that this is the best thing that there could ever have been here "
    "some numbers are one two three four five six seven eight nine ten what is the answer "
    "user assistant system hello world please tell me a story about nothing at all thanks"
)


def byte_alphabet() -> list[str]:
    """Return the character that stands for each byte in GPT-2's vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def train_merges(corpus: str = _CORPUS, n_merges: int = N_MERGES) -> list[tuple[str, str]]:
    """Return the BPE merges of a corpus, the most frequent pair first, ties by spelling."""
    words = Counter("Ġ" + word for word in corpus.split())
    spelled = {word: list(word) for word in words}
    merges: list[tuple[str, str]] = []
    for _ in range(n_merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in spelled.items():
            for pair in pairwise(symbols):
                pairs[pair] += words[word]
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        spelled = {word: _merge(symbols, best) for word, symbols in spelled.items()}
    return merges


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def write_tiny_gguf(path: Path, seed: int = 0, pre: str = "gpt-2") -> Path:
    """Write the model to `path` and return it. Needs the `gguf` package.

    `pre` names the rule by which llama.cpp splits text into words before the merges.
    """
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    n_tokens = _write_vocabulary(writer, gguf.TokenType, pre)
    _write_shape(writer, n_tokens)
    _write_weights(writer, n_tokens, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_vocabulary(writer: Any, token_type: Any, pre: str) -> int:
    merges = train_merges()
    tokens = [*CONTROL_TOKENS, USER_DEFINED_TOKEN, *byte_alphabet(), *("".join(m) for m in merges)]
    types = [token_type.NORMAL] * len(tokens)
    types[: len(CONTROL_TOKENS)] = [token_type.CONTROL] * len(CONTROL_TOKENS)
    types[len(CONTROL_TOKENS)] = token_type.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_unk_token_id(CONTROL_TOKENS.index("<unk>"))
    writer.add_bos_token_id(CONTROL_TOKENS.index("<s>"))
    writer.add_eos_token_id(CONTROL_TOKENS.index("</s>"))
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(tokens)


def _write_shape(writer: Any, n_tokens: int) -> None:
    writer.add_name("tiny-random")
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(n_tokens)


def _write_weights(writer: Any, n_tokens: int, rng: np.random.Generator) -> None:
    def add(name: str, rows: int, columns: int, scale: float) -> None:
        weights = rng.standard_normal((rows, columns), dtype=np.float32) * scale
        if name == "output":
            weights[: len(CONTROL_TOKENS) + 1] = 0  # no control token is ever the likeliest
        writer.add_tensor(f"{name}.weight", weights.astype(np.float16))

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, dtype=np.float32))

    kv_width = _WIDTH // _HEADS * _KV_HEADS
    scale = _WIDTH**-0.5
    add("token_embd", n_tokens, _WIDTH, 0.5)
    add("output", n_tokens, _WIDTH, 2.5 * scale)
    add_norm("output_norm")
    for layer in range(_LAYERS):
        block = f"blk.{layer}."
        add_norm(f"{block}attn_norm")
        add_norm(f"{block}ffn_norm")
        for name, rows in (("q", _WIDTH), ("k", kv_width), ("v", kv_width), ("output", _WIDTH)):
            add(f"{block}attn_{name}", rows, _WIDTH, scale)
        add(f"{block}ffn_gate", _FEED_FORWARD, _WIDTH, scale)
        add(f"{block}ffn_up", _FEED_FORWARD, _WIDTH, scale)
        add(f"{block}ffn_down", _WIDTH, _FEED_FORWARD, _FEED_FORWARD**-0.5)
