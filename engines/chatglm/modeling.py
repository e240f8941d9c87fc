"""ChatGLM-6B, the first generation, in PyTorch.

The computation is that of the authors' model (THUDM/chatglm-6b, modeling_chatglm.py of
2023-09): multi-head attention with two-dimensional rotary embeddings, a prompt that sees itself
in both directions, and a residual that carries the *normalised* input of each block, scaled.
The modules have the names of the published weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch  # noqa: TID253 - imported only when a ChatGLM model is loaded
from torch import Tensor, nn  # noqa: TID253
from torch.nn import functional  # noqa: TID253

from engines.chatglm.config import V1Config
from engines.chatglm.positions import block_positions

# sqrt(2 * 28): the authors' block has 28 as a constant, whatever `num_layers` is.
ALPHA = math.sqrt(2 * 28)
ROTARY_BASE = 10000.0


class Cache(Protocol):
    """Holds the keys and values of earlier tokens."""

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Add `[batch, heads, new tokens, head size]`; return all of the layer's so far."""
        ...


class ChatGLM(nn.Module):  # type: ignore[misc]
    """ChatGLM-6B as the transformers engine drives it: `engines.transformers.special`.

    The tokens of a prompt but the last, `<sop>`, see each other in both directions, so they must
    go through in one call; what follows is causal.
    """

    is_special_model: Literal[True] = True
    is_prompt_bidirectional = True
    prompt_prefix_ids: tuple[int, ...] = ()

    def __init__(self, config: V1Config, suffix_ids: Sequence[int] = ()) -> None:
        super().__init__()
        self.context_length = config.context_length
        self.stop_token_ids = (config.eos_id,)
        self.prompt_suffix_ids = tuple(suffix_ids)
        self._quarter = config.head_size // 4
        self.transformer = _Transformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def positions(self, prompt_length: int, start: int, stop: int) -> Tensor:
        """Positions and block positions of the tokens `start` to `stop`, `[2, stop - start]`.

        `prompt_length` counts the prompt's own tokens and `prompt_suffix_ids`.
        """
        return torch.tensor(block_positions(prompt_length, start, stop), dtype=torch.long)

    def forward(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor,
        attention_mask: Tensor,
        past_key_values: Cache,
        logits_to_keep: int = 0,
    ) -> Tensor:
        """Return the logits of the last `logits_to_keep` new tokens, or of all for 0.

        `input_ids` is `[batch, new tokens]`; `position_ids` is `[batch, 2, new tokens]`, the
        rows' `positions`. `attention_mask`, boolean `[batch, 1, new tokens, all tokens]`, is
        True where a new token (row) sees a token (column; the cached ones first). The cache
        takes in the new keys and values. The result is `[batch, tokens, vocabulary]`.
        """
        rotation = _rotation(position_ids, self._quarter)
        hidden = self.transformer(input_ids, rotation, attention_mask, past_key_values)
        return self.lm_head(hidden[:, -logits_to_keep:])


class _Transformer(nn.Module):  # type: ignore[misc]
    def __init__(self, config: V1Config) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.layer_norm_eps
        self.word_embeddings = nn.Embedding(config.vocab_size, size)
        self.layers = nn.ModuleList(_Block(config, index) for index in range(config.n_layers))
        self.final_layernorm = nn.LayerNorm(size, eps)

    def forward(self, input_ids: Tensor, *context: Any) -> Tensor:
        hidden = self.word_embeddings(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, *context)
        return self.final_layernorm(hidden)


class _Block(nn.Module):  # type: ignore[misc]
    def __init__(self, config: V1Config, index: int) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.layer_norm_eps
        self.input_layernorm = nn.LayerNorm(size, eps)
        self.attention = _Attention(config, index)
        self.post_attention_layernorm = nn.LayerNorm(size, eps)
        self.mlp = _FeedForward(config)

    def forward(self, hidden: Tensor, *context: Any) -> Tensor:
        # Both residuals carry the normalised value, not what came in.
        normed = self.input_layernorm(hidden)
        hidden = normed * ALPHA + self.attention(normed, *context)
        normed = self.post_attention_layernorm(hidden)
        return normed * ALPHA + self.mlp(normed)


class _Attention(nn.Module):  # type: ignore[misc]
    def __init__(self, config: V1Config, index: int) -> None:
        super().__init__()
        self._index = index
        self._n_heads = config.n_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor, cache: Cache
    ) -> Tensor:
        # Head by head: the query, the key and the value of one head lie side by side.
        heads = self.query_key_value(hidden).unflatten(-1, (self._n_heads, 3, -1))
        query, key, value = heads.permute(3, 0, 2, 1, 4).unbind(0)
        keys, values = cache.update(_rotate(key, *rotation), value, self._index)
        # Its kernels take the softmax in float32 whatever the dtype, as the authors do.
        mixed = functional.scaled_dot_product_attention(
            _rotate(query, *rotation), keys, values, attn_mask=mask
        )
        return self.dense(mixed.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):  # type: ignore[misc]
    def __init__(self, config: V1Config) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_size)
        self.dense_4h_to_h = nn.Linear(config.inner_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dense_4h_to_h(functional.gelu(self.dense_h_to_4h(hidden), approximate="tanh"))


def _rotation(position_ids: Tensor, quarter: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, `[batch, 1, tokens, 2, quarter of a head]`, in float32.

    The last but one dimension is: by position, by block position. The authors keep the
    frequencies in float16, so they are rounded to it.
    """
    exponents = torch.arange(quarter, dtype=torch.float32, device=position_ids.device) / quarter
    frequencies = (1.0 / ROTARY_BASE**exponents).half().float()
    angles = position_ids.transpose(1, 2).unsqueeze(-1) * frequencies
    return angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first half of each head by position and the second by block position.

    Inside a half, number i and number i + a quarter of the head are a pair.
    """
    first, second = heads.float().unflatten(-1, (2, 2, -1)).unbind(-2)
    rotated = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-2)
    return rotated.flatten(-3).to(heads.dtype)
