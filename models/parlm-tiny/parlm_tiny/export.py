"""Writes the weights: safetensors in Hugging Face's layout, and GGUF for llama.cpp."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from parlm_tiny.config import ModelConfig
from parlm_tiny.encoding import CHAT_TEMPLATE, END, END_ID, PAD, PAD_ID, SPECIAL_TOKENS
from parlm_tiny.model import TinyLlama

Array = NDArray[Any]

LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Names inside a layer: Hugging Face's and GGUF's."""


def gguf_name(name: str) -> str:
    """GGUF's name of a parameter that has Hugging Face's name."""
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, *inside = name.removesuffix(".weight").split(".")
    return f"blk.{layer}.{LAYER_NAMES['.'.join(inside)]}.weight"


def heads_of(name: str, config: ModelConfig) -> int | None:
    """Number of heads whose rows GGUF keeps in another order; None for other parameters."""
    if "q_proj" in name:
        return config.num_attention_heads
    return config.num_key_value_heads if "k_proj" in name else None


def interleave(rows: Array, heads: int) -> Array:
    """From rotate-half order to adjacent pairs, as llama.cpp's converter permutes q and k."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return split.swapaxes(1, 2).reshape(rows.shape)


def deinterleave(rows: Array, heads: int) -> Array:
    """The inverse of ``interleave``."""
    split = rows.reshape(heads, rows.shape[0] // heads // 2, 2, rows.shape[1])
    return split.swapaxes(1, 2).reshape(rows.shape)


def hf_config(config: ModelConfig) -> dict[str, Any]:
    """``config.json`` of a ``LlamaForCausalLM``."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **asdict(config),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": END_ID,
        "pad_token_id": PAD_ID,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def tokenizer_config(config: ModelConfig) -> dict[str, Any]:
    """``tokenizer_config.json`` of a ``PreTrainedTokenizerFast``."""
    added = {
        str(index): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for index, token in enumerate(SPECIAL_TOKENS)
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": added,
        "bos_token": None,
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.max_position_embeddings,
        "chat_template": CHAT_TEMPLATE,
    }


def write_json(path: Path, value: Any) -> None:
    """JSON with a newline at its end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_hf(model: TinyLlama, tokenizer_json: Path, folder: Path) -> None:
    """The folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: p.detach().to(torch.bfloat16).contiguous() for n, p in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    write_json(folder / "config.json", hf_config(model.config))
    generation = {"do_sample": False, "eos_token_id": END_ID, "pad_token_id": PAD_ID}
    write_json(folder / "generation_config.json", generation)
    write_json(folder / "tokenizer_config.json", tokenizer_config(model.config))
    (folder / "tokenizer.json").write_bytes(tokenizer_json.read_bytes())


def read_hf(folder: Path, config: ModelConfig) -> TinyLlama:
    """The model of a written folder, its bfloat16 weights widened to float32."""
    return model_of(load_file(folder / "model.safetensors"), config)


def model_of(weights: dict[str, Tensor], config: ModelConfig) -> TinyLlama:
    """A float32 model with the given weights."""
    model = TinyLlama(config)
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    model.eval()
    return model


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer_json: Path) -> None:
    """Tokens, their types, merges and the template."""
    model = json.loads(tokenizer_json.read_text(encoding="utf-8"))["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    control, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in SPECIAL_TOKENS else normal for token in tokens])
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    writer.add_token_merges(list(merges))
    # Without a BOS id llama.cpp assumes token 11; none is ever added.
    writer.add_bos_token_id(PAD_ID)
    writer.add_eos_token_id(END_ID)
    writer.add_pad_token_id(PAD_ID)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_shape(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    """The network's sizes."""
    writer.add_name("parlm-tiny")
    writer.add_description("A tiny demonstration model, trained from scratch for parlm.")
    writer.add_license("mit")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def write_gguf(model: TinyLlama, tokenizer_json: Path, path: Path, quantise: bool = True) -> None:
    """One GGUF file: matrices in q8_0 (or float32), norms in float32."""
    writer = gguf.GGUFWriter(str(path), "llama")
    add_shape(writer, model.config)
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if quantise else gguf.LlamaFileType.ALL_F32
    writer.add_file_type(int(kind))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_tokenizer(writer, tokenizer_json)
    for name, value in model.state_dict().items():
        array: Array = value.detach().float().numpy()
        heads = heads_of(name, model.config)
        if heads:
            array = interleave(array, heads)
        array = np.ascontiguousarray(array)
        if quantise and array.ndim == 2:
            q8_0 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(gguf_name(name), gguf.quantize(array, q8_0), raw_dtype=q8_0)
        else:
            writer.add_tensor(gguf_name(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(path: Path, config: ModelConfig) -> TinyLlama:
    """The model of a GGUF file, its weights dequantised: the inverse of ``write_gguf``."""
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(str(path)).tensors}
    weights: dict[str, Tensor] = {}
    for name in TinyLlama(config).state_dict():
        tensor = stored[gguf_name(name)]
        array = gguf.dequantize(tensor.data, tensor.tensor_type)
        heads = heads_of(name, config)
        if heads:
            array = deinterleave(array, heads)
        weights[name] = torch.from_numpy(np.array(array))
    return model_of(weights, config)
