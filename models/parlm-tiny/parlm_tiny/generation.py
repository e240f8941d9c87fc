"""Greedy generation in torch with a key/value cache, many prompts at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from parlm_tiny.encoding import END_ID, PAD_ID
from parlm_tiny.model import TinyLlama, linear, rotate


class Cache:
    """Keys and values of all layers for a batch of left-padded prompts."""

    def __init__(self, model: TinyLlama, rows: int, capacity: int) -> None:
        config = model.config
        shape = (rows, config.num_key_value_heads, capacity, config.head_dim)
        self.keys = [torch.zeros(shape) for _ in range(config.num_hidden_layers)]
        self.values = [torch.zeros(shape) for _ in range(config.num_hidden_layers)]
        self.used = 0


def advance(model: TinyLlama, cache: Cache, ids: Tensor, pads: Tensor) -> Tensor:
    """Run ``ids`` (rows, new tokens) after the cached ones; logits of the last (rows, vocab).

    pads: how many padding tokens each row begins with; they are masked, and positions are
    counted after them.
    """
    rows, new = ids.shape
    start, end = cache.used, cache.used + new
    slots = torch.arange(end)
    positions = (slots[start:] - pads[:, None]).clamp(min=0)
    cos, sin = model.cos[positions].unsqueeze(2), model.sin[positions].unsqueeze(2)
    seen = (slots[None, None, :] <= slots[start:][None, :, None]) & (
        slots[None, None, :] >= pads[:, None, None]
    )
    seen = (seen | (slots[None, None, :] == slots[start:][None, :, None])).unsqueeze(1)
    x = F.embedding(ids, model.model.embed_tokens.weight)
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        flat = layer.input_layernorm(x).reshape(rows * new, -1)
        q = attention.q_proj(flat).view(rows, new, attention.heads, -1)
        k = attention.k_proj(flat).view(rows, new, attention.kv_heads, -1)
        v = attention.v_proj(flat).view(rows, new, attention.kv_heads, -1)
        cache.keys[index][:, :, start:end] = rotate(k, cos, sin).transpose(1, 2)
        cache.values[index][:, :, start:end] = v.transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            rotate(q, cos, sin).transpose(1, 2),
            cache.keys[index][:, :, :end],
            cache.values[index][:, :, :end],
            attn_mask=seen,
            enable_gqa=True,
        )
        x = layer.after(x, mixed.transpose(1, 2).reshape(rows, new, -1))
    cache.used = end
    return linear(model.model.norm(x[:, -1]), model.model.embed_tokens.weight)


@torch.no_grad()
def generate(
    model: TinyLlama, prompts: list[list[int]], limit: int = 160
) -> list[tuple[list[int], bool]]:
    """Greedy answers: token ids without the end token, and whether the end token came."""
    longest = max(len(prompt) for prompt in prompts)
    pads = torch.tensor([longest - len(prompt) for prompt in prompts])
    ids = torch.tensor([[PAD_ID] * (longest - len(prompt)) + prompt for prompt in prompts])
    cache = Cache(model, len(prompts), longest + limit)
    answers: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    for _ in range(limit):
        chosen = advance(model, cache, ids, pads).argmax(-1)
        for row, token in enumerate(chosen.tolist()):
            if token == END_ID:
                ended[row] = True
            if not ended[row]:
                answers[row].append(token)
        if all(ended):
            break
        ids = chosen[:, None]
    return list(zip(answers, ended, strict=True))
