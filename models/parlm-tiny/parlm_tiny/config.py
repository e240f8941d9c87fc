"""Sizes of the network and of its training run.

Four heads of 64 rather than eight of 32: the attention's softmax, which is bound by memory
on a CPU, then costs half as much.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a Llama decoder; the names follow Hugging Face's ``LlamaConfig``."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class TrainConfig:
    """The training run that made the shipped weights."""

    seed: int = 20
    total_steps: int = 2340
    rate_points: tuple[tuple[int, float], ...] = (
        (-1, 0.0),
        (39, 1.0),
        (1150, 1.0),
        (1350, 0.733333),
        (1360, 0.4),
        (1400, 0.37037),
        (1900, 0.08547),
        (1910, 0.15),
        (2150, 0.0),
        (2160, 0.16),
        (2340, 0.0),
    )
    """Steps and the learning rates' factors there; in between it is a straight line."""
    flat_tokens: int = 4096
    """Tokens of one micro-batch; see ``model``."""
    micro_batches: int = 2
    """Micro-batches of different lengths, and so of different skills, in one step."""
    chunk_conversations: int = 4096
    """Conversations that are generated together and then sorted by length."""
    matrix_lr: float = 0.02
    """Muon's rate, for the matrices of the layers."""
    matrix_weight_decay: float = 0.02
    vector_lr: float = 0.004
    """AdamW's rate, for the embedding and the norms."""
    tokenizer_conversations: int = 12000
    evaluate_every: int = 200
    evaluate_items: int = 24
    save_every: int = 50
    workers: int = 2
    """Processes of one thread each; they share the micro-batches and the matrices."""
