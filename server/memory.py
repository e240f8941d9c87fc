"""How much memory a model needs, from the number of its parameters.

Weights take parameters x bits per weight / 8 bytes. To run, a model needs about a fifth more, for
the keys and values of the context and for what is computed with; a long context or many requests
at once need more than that.
Sources: bits per weight of GGUF are what llama.cpp measured on Llama 3.1 8B
(https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/README.md), where the name of a
quantisation is a mix of several; the fifth is EleutherAI's rule for inference
(https://blog.eleuther.ai/transformer-math/).
"""

from __future__ import annotations

from collections.abc import Mapping

GB = 10**9
BITS_PER_WEIGHT: Mapping[str, float] = {
    "Q2_K": 3.1593,
    "Q3_K_S": 3.6429,
    "Q3_K_M": 3.9960,
    "Q3_K_L": 4.2979,
    "IQ4_XS": 4.4597,
    "Q4_0": 4.5,  # 32 weights in 18 bytes
    "Q4_K_S": 4.6672,
    "Q4_K_M": 4.8944,
    "Q4_0_2023": 5.0,  # GGML of before GGUF: 32 weights in 20 bytes
    "Q5_K_S": 5.5704,
    "Q5_K_M": 5.7036,
    "Q6_K": 6.5633,
    "Q8_0": 8.5008,
    "BF16": 16.0,
    "F16": 16.0,
    "F32": 32.0,
    # While loading, by bitsandbytes: 4 bits and a scale for each 64 weights; 8 bits.
    "NF4": 4.5,
    "INT8": 8.0,
}
RUNNING_SHARE = 1.2


def weights_bytes(parameters: int, quant: str) -> int:
    """Return the bytes of the weights in a quantisation of `BITS_PER_WEIGHT`."""
    return round(parameters * BITS_PER_WEIGHT[quant] / 8)


def running_bytes(weights: int) -> int:
    """Return the memory that a model with so many bytes of weights needs to run."""
    return round(weights * RUNNING_SHARE)


def in_gb(size: int) -> str:
    """Return a size for people: `7.9 GB`, in units of 10^9 bytes."""
    return f"{size / GB:.1f} GB" if size < 100 * GB else f"{size / GB:.0f} GB"
