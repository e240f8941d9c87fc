"""What every engine that decodes itself asks of sampling parameters."""

from __future__ import annotations

from engines.errors import InvalidParameter
from engines.types import SamplingParams

# Below it dividing logits would overflow a float; vLLM draws the same line.
GREEDY_TEMPERATURE = 1e-5
# OpenAI's bound on `top_logprobs`.
MAX_LOGPROBS = 20


def is_greedy(params: SamplingParams) -> bool:
    """Tell whether a request asks for the likeliest token each time."""
    return params.temperature < GREEDY_TEMPERATURE or params.top_k == 1


def check_sampling(params: SamplingParams, n_vocab: int) -> None:
    """Raise `InvalidParameter` for what only an engine can judge."""
    for token, _ in params.logit_bias:
        _check_token("logit_bias", token, n_vocab)
    for token in params.stop_token_ids:
        _check_token("stop_token_ids", token, n_vocab)
    if params.n < 1:
        raise InvalidParameter("n", f"n must be at least 1, not {params.n}")
    if params.logprobs is not None and not 0 <= params.logprobs <= MAX_LOGPROBS:
        raise InvalidParameter(
            "logprobs",
            f"at most {MAX_LOGPROBS} likeliest tokens can be told, not {params.logprobs}",
        )
    if params.repetition_penalty <= 0:
        raise InvalidParameter(
            "repetition_penalty",
            f"repetition_penalty must be above 0, not {params.repetition_penalty!r}",
        )


def _check_token(param: str, token: int, n_vocab: int) -> None:
    if not 0 <= token < n_vocab:
        raise InvalidParameter(
            param, f"token id {token} in {param!r} is not in the vocabulary (0 to {n_vocab - 1})"
        )
