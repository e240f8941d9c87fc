"""Small tokenizers of every kind that the engine tells apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.engines.tiny_folder import byte_tokenizer

KINDS = ("byte_level", "llama_fast", "sentencepiece_slow", "t5_fast", "word_piece", "python_slow")


def build(kind: str, folder: Path) -> Any:
    """Build the tokenizer of that kind; a folder for its files."""
    if kind == "byte_level":
        return byte_tokenizer()
    if kind == "sentencepiece_slow":
        return _sentencepiece_slow(folder)
    return {
        "llama_fast": _llama_fast,
        "t5_fast": _t5_fast,
        "word_piece": _word_piece,
        "python_slow": _python_slow,
    }[kind]()


def _llama_fast() -> Any:
    """LLaMA's kind, with a merge that spells `</s>` out of ordinary tokens."""
    from transformers import LlamaTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["▁", "<", ">", "/", ",", *letters, "▁h", "▁he", "ll", "</", "s>"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    merges = [("▁", "h"), ("▁h", "e"), ("l", "l"), ("<", "/"), ("s", ">"), ("</", "s>")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True)


def _sentencepiece_slow(folder: Path) -> Any:
    """A tokenizer in Python around a SentencePiece model."""
    import sentencepiece
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    text = folder / "text.txt"
    text.write_text("hello, world\nthe quick brown fox jumps over the lazy dog </ s> <s\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=5,
    )

    class SlowTokenizer(SentencePieceBackend):  # type: ignore[misc]
        vocab_files_names = {"vocab_file": "tokenizer.model"}

    return SlowTokenizer(
        vocab_file=str(folder / "tokenizer.model"),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )


def _t5_fast() -> Any:
    """T5's kind: words with their space in front, and `</s>` behind every text."""
    from transformers import T5Tokenizer

    letters = [(chr(code), -9.0) for code in range(ord("a"), ord("z") + 1)]
    pieces = [("▁", -5.0), ("▁hello", -2.0), ("▁world", -2.0), ("<", -9.0), ("/", -9.0)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    more = [(">", -9.0), (",", -9.0)]
    return T5Tokenizer(vocab=[*special, *pieces, *more, *letters], extra_ids=0)


def _word_piece() -> Any:
    """BERT's kind: a token's text depends on what is before it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "[SEP]", "hello", "##s", "world", ",", "<", "/", "s", ">"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="[SEP]")


def _python_slow() -> Any:
    """A tokenizer in Python over bytes."""
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer(extra_ids=0)
