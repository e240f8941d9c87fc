"""A small model that is no class of transformers: ChatGLM's kind of prompt, two positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

N_VOCAB = 40
MASK, START, END = 37, 38, 39
WIDTH, HEADS = 16, 2


class TinySpecial(nn.Module):  # type: ignore[misc]
    """A `SpecialModel`: the prompt, all but its last token, sees itself in both directions."""

    is_special_model: Literal[True] = True
    context_length = 64
    stop_token_ids = (END,)
    prompt_prefix_ids = ()
    prompt_suffix_ids = (MASK, START)

    def __init__(self, *, is_prompt_bidirectional: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.is_prompt_bidirectional = is_prompt_bidirectional
        self.tokens = nn.Embedding(N_VOCAB, WIDTH)
        self.places = nn.ModuleList(nn.Embedding(64, WIDTH) for _ in range(2))
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.head = nn.Linear(WIDTH, N_VOCAB)

    def positions(self, prompt_length: int, start: int, stop: int) -> torch.Tensor:
        """First the place in the prompt, which the answer keeps, then the place behind it."""
        index, last = torch.arange(start, stop), prompt_length - 1
        place = torch.where(index < last, index, torch.tensor(max(last - 1, 0)))
        return torch.stack([place, (index - last + 1).clamp(min=0)])

    def forward(
        self,
        input_ids: torch.Tensor,
        *,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        past_key_values: Any,
        logits_to_keep: int = 0,
    ) -> torch.Tensor:
        n_rows, n_tokens = input_ids.shape
        assert position_ids.shape == (n_rows, 2, n_tokens)
        assert attention_mask.dtype == torch.bool
        x = self.tokens(input_ids)
        for number, places in enumerate(self.places):
            x = x + places(position_ids[:, number])
        for number, layer in enumerate(self.layers):
            split = layer(x).view(n_rows, n_tokens, HEADS, -1).transpose(1, 2)
            query, keys, values = split.chunk(3, dim=-1)
            keys, values = past_key_values.update(keys, values, number)
            assert attention_mask.shape == (n_rows, 1, n_tokens, keys.shape[2])
            seen = nn.functional.scaled_dot_product_attention(
                query, keys, values, attn_mask=attention_mask
            )
            x = x + seen.transpose(1, 2).reshape(n_rows, n_tokens, WIDTH)
        return self.head(x[:, -logits_to_keep:])


class LetterVocabulary:
    """A `Vocabulary` of letters: token 1 is `a`, three at the end are control tokens."""

    n_tokens = N_VOCAB
    longest = 1
    bos: int | None = None
    add_bos = False
    user_defined: dict[int, str] = {}
    end_tokens: frozenset[int] = frozenset()
    strips_first_space = False

    @property
    def pieces(self) -> Sequence[bytes]:
        return [bytes([96 + token]) if 0 < token < 27 else b"" for token in range(N_VOCAB)]

    @property
    def names(self) -> Sequence[bytes]:
        return [piece or b"<?>" for piece in self.pieces]

    def tokenize(self, text: bytes) -> list[int]:
        return [letter - 96 for letter in text if 96 < letter < 123]

    def special_id(self, name: str) -> int | None:
        return {"[gMASK]": MASK, "<sop>": START, "<eop>": END}.get(name)


def load(_path: str, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """A loader."""
    assert arguments["use_safetensors"]
    return TinySpecial(), LetterVocabulary()


def load_causal(_path: str, _arguments: dict[str, Any]) -> tuple[Any, Any]:
    """A loader of one whose prompt is seen in order only."""
    return TinySpecial(is_prompt_bidirectional=False), LetterVocabulary()
