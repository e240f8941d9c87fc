"""Tiny models of random weights, one of each architecture that is promised."""

from __future__ import annotations

from typing import Any

N_VOCAB = 259
# Wide gaps between the logits, so that rounding does not choose the token.
SPREAD = 0.3

CAUSAL = ("llama", "falcon", "falcon_rw", "gptj", "mpt", "sliding")


def build(name: str) -> Any:
    """Build the model of that name, ready to run."""
    import torch

    torch.manual_seed(0)
    return globals()[f"_{name}"]().eval()


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_usual(num_key_value_heads=2, intermediate_size=64)))


def _falcon() -> Any:
    """Falcon-40b's kind: rotary, several heads of keys."""
    from transformers import FalconConfig, FalconForCausalLM

    return FalconForCausalLM(
        FalconConfig(**_usual(new_decoder_architecture=True, num_kv_heads=2, alibi=False))
    )


def _falcon_rw() -> Any:
    """Falcon-rw's kind: ALiBi instead of rotary."""
    from transformers import FalconConfig, FalconForCausalLM

    kind = {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}
    return FalconForCausalLM(FalconConfig(**_usual(**kind)))


def _gptj() -> Any:
    from transformers import GPTJConfig, GPTJForCausalLM

    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 256}
    return GPTJForCausalLM(
        GPTJConfig(vocab_size=N_VOCAB, initializer_range=SPREAD, eos_token_id=2, **sizes)
    )


def _mpt() -> Any:
    from transformers import MptConfig, MptForCausalLM

    sizes = {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256, "expansion_ratio": 2}
    return MptForCausalLM(
        MptConfig(vocab_size=N_VOCAB, initializer_range=SPREAD, eos_token_id=2, **sizes)
    )


def _sliding() -> Any:
    """Mistral's kind: a token sees the last few only."""
    from transformers import MistralConfig, MistralForCausalLM

    config = _usual(num_key_value_heads=2, intermediate_size=64, sliding_window=6)
    return MistralForCausalLM(MistralConfig(**config))


def _t5() -> Any:
    """Flan-T5's kind: gated GELU, embeddings not shared with the head."""
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=N_VOCAB,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            decoder_start_token_id=0,
            eos_token_id=2,
            n_positions=64,
            initializer_factor=2.0,
            **sizes,
        )
    )


def _bart() -> Any:
    """An encoder-decoder whose positions are counted from the length of the memory."""
    from transformers import BartConfig, BartForConditionalGeneration

    layers = {"encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": SPREAD}
    return BartForConditionalGeneration(BartConfig(vocab_size=N_VOCAB, **layers, **heads, **sizes))


def _usual(**more: Any) -> dict[str, Any]:
    usual = {
        "vocab_size": N_VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": SPREAD,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return usual | more
