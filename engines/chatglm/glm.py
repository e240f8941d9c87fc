"""ChatGLM2-6B and 3 as transformers' GLM, which computes the same from other names.

Both have RMSNorm, rotary embeddings on the first half of each head in neighbouring pairs, keys
and values in groups, biases on query, key and value only, and SwiGLU with gate and input packed
into one matrix (huggingface.co/docs/transformers/model_doc/glm). The authors pack query, key and
value into one matrix too, one after the other; here they are cut apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch  # noqa: TID253 - imported only when a ChatGLM model is loaded
from torch import Tensor, nn  # noqa: TID253
from transformers import GlmConfig, GlmForCausalLM  # noqa: TID253

from engines.chatglm.config import V2Config
from engines.chatglm.weights import Shape

ROTARY_BASE = 10000.0

_LAYER = "transformer.encoder.layers.{}."
_QKV = "self_attention.query_key_value."
# The authors' names to those of transformers, outside the layers and in one.
_OUTER = {
    "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "transformer.encoder.final_layernorm.weight": "model.norm.weight",
    "transformer.output_layer.weight": "lm_head.weight",
}
_INNER = {
    "input_layernorm.weight": "input_layernorm.weight",
    "self_attention.dense.weight": "self_attn.o_proj.weight",
    "post_attention_layernorm.weight": "post_attention_layernorm.weight",
    "mlp.dense_h_to_4h.weight": "mlp.gate_up_proj.weight",
    "mlp.dense_4h_to_h.weight": "mlp.down_proj.weight",
}


class ChatGLM2(nn.Module):  # type: ignore[misc]
    """ChatGLM2-6B as the transformers engine drives it: `engines.transformers.special`.

    It is GLM with a prefix of two tokens, `[gMASK]` and `sop`, before every prompt.
    """

    is_special_model: Literal[True] = True
    is_prompt_bidirectional = False
    prompt_suffix_ids: tuple[int, ...] = ()

    def __init__(
        self,
        glm: Any,
        context_length: int,
        prefix_ids: tuple[int, ...],
        stop_token_ids: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.glm = glm
        self.context_length = context_length
        self.prompt_prefix_ids = prefix_ids
        self.stop_token_ids = stop_token_ids

    def positions(self, prompt_length: int, start: int, stop: int) -> Tensor:  # noqa: ARG002
        """Positions of the tokens `start` to `stop`, `[1, stop - start]`."""
        return torch.arange(start, stop)[None]

    def forward(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor,
        attention_mask: Tensor,
        past_key_values: Any,
        logits_to_keep: int = 0,
    ) -> Tensor:
        """Return the logits of the last `logits_to_keep` new tokens, or of all for 0.

        Arguments as of `engines.chatglm.modeling.ChatGLM`; `position_ids` is `[batch, 1, new
        tokens]`.
        """
        output = self.glm(
            input_ids=input_ids,
            position_ids=position_ids[:, 0],
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=True,
            logits_to_keep=logits_to_keep,
        )
        return output.logits


def build(config: V2Config, weights: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    """Make the GLM of weights that have the authors' names; they are copied in `dtype`."""
    return GlmForCausalLM.from_pretrained(
        None, config=glm_config(config), state_dict=renamed(config, weights), dtype=dtype
    )


def glm_config(config: V2Config) -> GlmConfig:
    """Say the same to transformers."""
    return GlmConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.inner_size,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        head_dim=config.head_size,
        max_position_embeddings=config.context_length,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": ROTARY_BASE,
            "partial_rotary_factor": 0.5,
        },
        attention_bias=True,
        tie_word_embeddings=False,
        pad_token_id=None,
        eos_token_id=None,
    )


def expected_shapes(config: V2Config) -> dict[str, Shape]:
    """Return the tensors that the authors' files hold, by name."""
    size, inner = config.hidden_size, config.inner_size
    n_query, n_kv = _widths(config)
    n_packed = n_query + 2 * n_kv
    shapes: dict[str, Shape] = dict.fromkeys(_OUTER, (config.vocab_size, size))
    shapes["transformer.encoder.final_layernorm.weight"] = (size,)
    for index in range(config.n_layers):
        layer = _LAYER.format(index)
        shapes[f"{layer}input_layernorm.weight"] = (size,)
        shapes[f"{layer}{_QKV}weight"] = (n_packed, size)
        shapes[f"{layer}{_QKV}bias"] = (n_packed,)
        shapes[f"{layer}self_attention.dense.weight"] = (size, n_query)
        shapes[f"{layer}post_attention_layernorm.weight"] = (size,)
        shapes[f"{layer}mlp.dense_h_to_4h.weight"] = (2 * inner, size)
        shapes[f"{layer}mlp.dense_4h_to_h.weight"] = (size, inner)
    return shapes


def renamed(config: V2Config, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same tensors under the names of transformers; no number is copied."""
    named = {new: weights[old] for old, new in _OUTER.items()}
    for index in range(config.n_layers):
        old_layer, new_layer = _LAYER.format(index), f"model.layers.{index}."
        for old, new in _INNER.items():
            named[new_layer + new] = weights[old_layer + old]
        for kind in ("weight", "bias"):
            for name, part in _cut(config, weights[f"{old_layer}{_QKV}{kind}"]):
                named[f"{new_layer}self_attn.{name}_proj.{kind}"] = part
    return named


def _widths(config: V2Config) -> tuple[int, int]:
    """Return the numbers a token's query, and its key or value, have over all heads."""
    return config.n_heads * config.head_size, config.n_kv_heads * config.head_size


def _cut(config: V2Config, packed: Tensor) -> Iterator[tuple[str, Tensor]]:
    n_query, n_kv = _widths(config)
    yield from zip("qkv", packed.split((n_query, n_kv, n_kv)), strict=True)
