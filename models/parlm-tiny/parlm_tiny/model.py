"""A Llama decoder in plain torch, laid out for fast training on a CPU.

The parameter names and the rotate-half form of the rotary embedding are those of
``transformers.LlamaForCausalLM``, so the state dict is saved without renaming.

Training sees a batch as one *flat* row of ``N`` tokens, ``N`` the same for every step, of
which the first ``B * T`` are ``B`` sequences of ``T`` tokens and the rest is unused. All parts
except attention work token by token, so they keep a single static shape: ``torch.compile``
compiles them once whatever the lengths of the sequences are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parlm_tiny.config import ModelConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learnt scale (Zhang and Sennrich, 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis in float32; the result has the type of ``x``."""
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight).to(x.dtype)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply by a matrix in the type of the activations."""
    return F.linear(x, weight.to(x.dtype))


class Projection(nn.Module):
    """A matrix without bias, of shape (outputs, inputs)."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * std)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return linear(x, self.weight)


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, each (context, head_dim)."""
    exponent = torch.arange(0, config.head_dim, 2).float() / config.head_dim
    angles = torch.outer(
        torch.arange(config.max_position_embeddings).float(), config.rope_theta**-exponent
    )
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each head by its position's angles, half against half (Hugging Face's order)."""
    low, high = x.float().chunk(2, dim=-1)
    turned = torch.cat((-high, low), dim=-1)
    return (x.float() * cos + turned * sin).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention's projections; the product itself is ``attend``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        std, width = config.initializer_range, config.head_dim
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = width
        self.q_proj = Projection(config.hidden_size, self.heads * width, std)
        self.k_proj = Projection(config.hidden_size, self.kv_heads * width, std)
        self.v_proj = Projection(config.hidden_size, self.kv_heads * width, std)
        out_std = std / (2 * config.num_hidden_layers) ** 0.5
        self.o_proj = Projection(self.heads * width, config.hidden_size, out_std)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(tokens, hidden) -> rotated queries, rotated keys, values: (tokens, heads, head_dim)."""
        q = self.q_proj(x).view(-1, self.heads, self.head_dim)
        k = self.k_proj(x).view(-1, self.kv_heads, self.head_dim)
        v = self.v_proj(x).view(-1, self.kv_heads, self.head_dim)
        return rotate(q, cos, sin), rotate(k, cos, sin), v


class MLP(nn.Module):
    """The gated feed-forward layer (SwiGLU)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        std = config.initializer_range
        self.gate_proj = Projection(config.hidden_size, config.intermediate_size, std)
        self.up_proj = Projection(config.hidden_size, config.intermediate_size, std)
        out_std = std / (2 * config.num_hidden_layers) ** 0.5
        self.down_proj = Projection(config.intermediate_size, config.hidden_size, out_std)

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, hidden) -> (tokens, hidden)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One decoder layer, in two halves around the attention product."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def before(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the normalised input."""
        return self.self_attn.project(self.input_layernorm(x), cos, sin)

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Add the attention's output, then the feed-forward layer's."""
        x = x + self.self_attn.o_proj(mixed)
        return x + self.mlp(self.post_attention_layernorm(x))


def attend(q: Tensor, k: Tensor, v: Tensor, rows: int, length: int) -> Tensor:
    """Causal attention inside each of ``rows`` sequences of ``length`` tokens of the flat row.

    q, k, v: (tokens, heads, head_dim) -> (tokens, heads * head_dim); unused tokens give zeros.
    The query heads that share a key head are stacked along the query axis, so keys are not
    copied. Plain products are faster here than the fused kernel, whose backward pass on a CPU
    is slow for short sequences.
    """
    tokens, heads, head_dim = q.shape
    used, kv_heads = rows * length, k.shape[1]
    group = heads // kv_heads
    queries = q[:used].view(rows, length, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4)
    queries = queries.reshape(rows * kv_heads, group * length, head_dim)
    keys = k[:used].view(rows, length, kv_heads, head_dim).permute(0, 2, 3, 1)
    values = v[:used].view(rows, length, kv_heads, head_dim).transpose(1, 2)
    future = torch.full((length, length), -1e9, dtype=q.dtype).triu(1).repeat(group, 1)
    scores = torch.baddbmm(
        future, queries, keys.reshape(rows * kv_heads, head_dim, length), alpha=head_dim**-0.5
    )
    mixed = torch.bmm(scores.softmax(-1), values.reshape(rows * kv_heads, length, head_dim)).view(
        rows, kv_heads, group, length, head_dim
    )
    mixed = mixed.permute(0, 3, 1, 2, 4).reshape(used, heads * head_dim)
    return F.pad(mixed, (0, 0, 0, tokens - used))


class Decoder(nn.Module):
    """Embedding, layers and final norm: what Hugging Face calls ``LlamaModel``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=config.initializer_range)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class TinyLlama(nn.Module):
    """The whole model with tied embeddings; state-dict names are ``LlamaForCausalLM``'s."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.dtype = config, dtype
        self.model = Decoder(config)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.before, self.after = Block.before, Block.after

    def compile_blocks(self) -> None:
        """Compile the two halves of a layer, shared by all layers."""
        self.before = torch.compile(Block.before, dynamic=False)
        self.after = torch.compile(Block.after, dynamic=False)

    def hidden(self, flat: Tensor, rows: int, length: int) -> Tensor:
        """Final hidden states of a flat batch: (tokens,) -> (tokens, hidden)."""
        where = torch.arange(flat.shape[0]) % length
        cos, sin = self.cos[where].unsqueeze(1), self.sin[where].unsqueeze(1)
        x = F.embedding(flat, self.model.embed_tokens.weight).to(self.dtype)
        for layer in self.model.layers:
            q, k, v = self.before(layer, x, cos, sin)
            x = self.after(layer, x, attend(q, k, v, rows, length))
        return self.model.norm(x)

    def loss(
        self, flat: Tensor, rows: int, length: int, at: Tensor, target: Tensor, weight: Tensor
    ) -> Tensor:
        """Weighted sum of cross-entropies at the flat positions ``at``.

        target: the token after each position; weight: how much each counts.
        """
        chosen = self.hidden(flat, rows, length)[at]
        logits = linear(chosen, self.model.embed_tokens.weight)
        return (F.cross_entropy(logits.float(), target, reduction="none") * weight).sum()
