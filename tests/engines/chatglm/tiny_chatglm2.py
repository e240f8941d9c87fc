"""Writes a ChatGLM2 of random weights in its authors' layout, and the same weights as GGUF."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece

N_PIECES, N_VOCAB = 300, 320  # the model has room for more ids than there are tokens
WIDTH, LAYERS, HEADS, GROUPS, HEAD_SIZE, INNER, CONTEXT = 64, 3, 4, 2, 16, 96, 512
GMASK, SOP, EOS = N_PIECES + 1, N_PIECES + 3, 2

_CORPUS = (
    "hello world, say something about the weather",
    "[Round 1] the first question and the first answer",
    "the quick brown fox jumps over the lazy dog",
)


def write_tokenizer(
    folder: Path, name: str = "tokenizer.model", user_defined: tuple[str, ...] = ()
) -> None:
    """Write a SentencePiece model of `N_PIECES` pieces, bytes among them."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=N_PIECES,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=list(user_defined),
        minloglevel=2,
    )
    (folder / name).write_bytes(model.getvalue())


def config(**changes: object) -> dict[str, object]:
    """Return a config.json with the fields of THUDM/chatglm2-6b, at a small size."""
    return {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "apply_query_key_layer_scaling": True,
        "apply_residual_connection_post_layernorm": False,
        "attention_softmax_in_fp32": True,
        "ffn_hidden_size": INNER,
        "hidden_size": WIDTH,
        "kv_channels": HEAD_SIZE,
        "layernorm_epsilon": 1e-05,
        "multi_query_attention": True,
        "multi_query_group_num": GROUPS,
        "num_attention_heads": HEADS,
        "num_layers": LAYERS,
        "original_rope": True,
        "padded_vocab_size": N_VOCAB,
        "post_layer_norm": True,
        "quantization_bit": 0,
        "rmsnorm": True,
        "seq_length": CONTEXT,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        **changes,
    }


def random_weights(seed: int = 0) -> dict[str, Any]:
    """Return tensors under the names of THUDM/chatglm2-6b, the ignored `inv_freq` too."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float = 0.15) -> Any:
        return torch.randn(shape, generator=generator) * scale

    def norm() -> Any:
        return 1 + random(WIDTH, scale=0.3)

    packed = (HEADS + 2 * GROUPS) * HEAD_SIZE
    weights = {
        "transformer.embedding.word_embeddings.weight": random(N_VOCAB, WIDTH, scale=1.0),
        "transformer.rotary_pos_emb.inv_freq": torch.ones(HEAD_SIZE // 4),
        "transformer.encoder.final_layernorm.weight": norm(),
        "transformer.output_layer.weight": random(N_VOCAB, WIDTH, scale=0.5),
    }
    for index in range(LAYERS):
        layer = f"transformer.encoder.layers.{index}."
        weights |= {
            f"{layer}input_layernorm.weight": norm(),
            f"{layer}self_attention.query_key_value.weight": random(packed, WIDTH),
            f"{layer}self_attention.query_key_value.bias": random(packed, scale=0.5),
            f"{layer}self_attention.dense.weight": random(WIDTH, HEADS * HEAD_SIZE),
            f"{layer}post_attention_layernorm.weight": norm(),
            f"{layer}mlp.dense_h_to_4h.weight": random(2 * INNER, WIDTH),
            f"{layer}mlp.dense_4h_to_h.weight": random(WIDTH, INNER),
        }
    return weights


def write_folder(folder: Path, weights: Mapping[str, Any], **changes: object) -> Path:
    """Write config, tokenizer and weights, these as one safetensors file; return the folder."""
    from safetensors.torch import save_file

    (folder / "config.json").write_text(json.dumps(config(**changes)))
    write_tokenizer(folder)
    save_file(dict(weights), folder / "model.safetensors")
    return folder


# llama.cpp's names for the same tensors; it keeps what the authors packed together.
_GGUF_OUTER = {
    "transformer.embedding.word_embeddings.weight": "token_embd.weight",
    "transformer.encoder.final_layernorm.weight": "output_norm.weight",
    "transformer.output_layer.weight": "output.weight",
}
_GGUF_INNER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attention.query_key_value.weight": "attn_qkv.weight",
    "self_attention.query_key_value.bias": "attn_qkv.bias",
    "self_attention.dense.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.dense_h_to_4h.weight": "ffn_up.weight",
    "mlp.dense_4h_to_h.weight": "ffn_down.weight",
}


def write_gguf(file: Path, weights: Mapping[str, Any]) -> Path:
    """Write the weights for llama.cpp's architecture `chatglm`, in float32; return the file."""
    import gguf

    writer = gguf.GGUFWriter(str(file), "chatglm")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD_SIZE // 2)
    writer.add_rope_freq_base(10000.0)
    # Ids alone are used, but there must be tokens.
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"t{index}" for index in range(N_VOCAB)])
    writer.add_token_scores([0.0] * N_VOCAB)
    writer.add_token_types([gguf.TokenType.NORMAL] * N_VOCAB)
    for name, tensor in weights.items():
        if not name.endswith("inv_freq"):
            writer.add_tensor(_gguf_name(name), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _gguf_name(name: str) -> str:
    if name in _GGUF_OUTER:
        return _GGUF_OUTER[name]
    index, _, rest = name.removeprefix("transformer.encoder.layers.").partition(".")
    return f"blk.{index}.{_GGUF_INNER[rest]}"
