"""A BERT of random weights for tests, in Hugging Face's form and the same as GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONTEXT_LENGTH = 64
WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("hello", "world", "the", "quick", "brown", "fox", "story", "##ing", "tell"),
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    *(".", ",", "!"),
)
_WIDTH, _LAYERS, _FEED_FORWARD, _HEADS = 32, 2, 64, 4
_LAYER_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}


def make_bert() -> Any:
    """Build the model, a `transformers.BertModel`, the same each time."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=_WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        intermediate_size=_FEED_FORWARD,
        max_position_embeddings=CONTEXT_LENGTH,
        type_vocab_size=2,
        initializer_range=0.3,
    )
    return BertModel(config, add_pooling_layer=False).eval()


def write_vocabulary(path: Path) -> Path:
    """Write the word pieces as `vocab.txt`."""
    path.write_text("\n".join(WORDS) + "\n")
    return path


def write_bert_gguf(model: Any, path: Path, pooling: int | None = None) -> Path:
    """Write the model as GGUF; `pooling` is llama.cpp's number of a pooling type."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_eps(model.config.layer_norm_eps)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_pooling_type(gguf.PoolingType(pooling))
    _write_vocabulary(writer, gguf.TokenType)
    for name, weight in model.state_dict().items():
        if name != "embeddings.position_ids":
            writer.add_tensor(_gguf_name(name), weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_vocabulary(writer: Any, token_type: Any) -> None:
    writer.add_token_type_count(2)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list([_phantom(word) for word in WORDS])
    is_control = [word.startswith("[") for word in WORDS]
    writer.add_token_types([token_type.CONTROL if c else token_type.NORMAL for c in is_control])
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)


def _phantom(word: str) -> str:
    """Spell a word piece as llama.cpp does: the start of a word is marked, not its rest."""
    if word.startswith("["):
        return word
    return word[2:] if word.startswith("##") else f"\u2581{word}"


def _gguf_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{_LAYER_NAMES[rest]}.{kind}"
