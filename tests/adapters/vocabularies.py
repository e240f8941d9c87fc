"""Small vocabularies of the two kinds the families have, as GGUF files that llama.cpp reads.

Both are trained on the spot: SentencePiece BPE with LLaMA's flags, and byte-level BPE as GPT-2's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines.decoding.prompt import PromptTokenizer
from engines.types import Prompt

CONTROL = ("[gMASK]", "<sop>", "<eop>", "sop")
END_OF_TEXT, IM_END = "<|endoftext|>", "<|im_end|>"
CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "USER: Hello! ASSISTANT: Hi! How can I help? USER: How are you? ASSISTANT:",
    "[INST] <<SYS>> You are a careful SQL assistant. <</SYS>> How many users are there? [/INST]",
    "### Human: Got any creative ideas? ### Assistant: Of course! User: Assistant: system",
    "[Round 1] 问：你好 答：你好！ 晚上睡不着应该怎么办 什么是索引？",
]


class GgufVocabulary:
    """A vocabulary as the engine reads it from a file without weights. Close it at the end."""

    def __init__(self, path: Path) -> None:
        from llama_cpp import llama_cpp as native

        from engines.llama_cpp.binding import Vocabulary

        params = native.llama_model_default_params()
        params.vocab_only = True
        self._native = native
        self._model = native.llama_model_load_from_file(str(path).encode(), params)
        assert self._model, f"llama.cpp did not read {path}"
        self._tokenizer = PromptTokenizer(Vocabulary(native.llama_model_get_vocab(self._model)))

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the ids that the model would see."""
        return self._tokenizer.encode(prompt)

    def close(self) -> None:
        self._native.llama_model_free(self._model)


def train_sentencepiece(folder: Path) -> Any:
    """Train a SentencePiece model with LLaMA's flags; return its processor."""
    import sentencepiece

    (folder / "corpus.txt").write_text("\n".join(CORPUS * 3), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=450,
        hard_vocab_limit=False,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        control_symbols=list(CONTROL),
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def write_sentencepiece(processor: Any, path: Path) -> Path:
    """Write the GGUF of a SentencePiece model."""
    import gguf

    kinds = gguf.TokenType
    ids = range(processor.get_piece_size())
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([processor.id_to_piece(i) for i in ids])
    writer.add_token_scores([processor.get_score(i) for i in ids])
    writer.add_token_types(
        [
            kinds.UNKNOWN
            if processor.is_unknown(i)
            else kinds.CONTROL
            if processor.is_control(i)
            else kinds.BYTE
            if processor.is_byte(i)
            else kinds.NORMAL
            for i in ids
        ]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    return _written(writer, path)


def train_byte_level() -> Any:
    """Train a byte-level BPE like GPT-2's; return the tokenizer, of the `tokenizers` package."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END_OF_TEXT, IM_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def write_byte_level(tokenizer: Any, path: Path) -> Path:
    """Write the GGUF of a byte-level BPE, with a BOS that nothing asks for, as Falcon's have."""
    import json

    import gguf

    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer = gguf.GGUFWriter(str(path), "falcon")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [
            gguf.TokenType.CONTROL if token in (END_OF_TEXT, IM_END) else gguf.TokenType.NORMAL
            for token in tokens
        ]
    )
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(True)
    return _written(writer, path)


def _written(writer: Any, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
