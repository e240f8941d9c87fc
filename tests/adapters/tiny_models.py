"""Folders of tiny random models as transformers writes them, with a byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
WIDTH = 16


def write_folder(folder: Path, model_class: str, config_class: str, **config: Any) -> Path:
    """Write a model of random weights with a tokenizer of bytes; return the folder."""
    import torch
    import transformers

    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    made = getattr(transformers, config_class)(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        **config,
    )
    getattr(transformers, model_class)(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_llama(folder: Path) -> Path:
    """Write a LlamaForCausalLM of one layer."""
    return write_folder(
        folder, "LlamaForCausalLM", "LlamaConfig", intermediate_size=32, max_position_embeddings=128
    )


def byte_tokenizer() -> Any:
    """Return a fast tokenizer whose tokens are bytes and a few special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
