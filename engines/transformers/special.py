"""What a model that is no class of transformers offers to be run here.

Its loader returns it with a transformers tokenizer or a `vocabulary.Vocabulary`.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol


class KeyValueCache(Protocol):
    """The keys and values of the tokens so far, as an attention layer uses it."""

    def update(self, keys: Any, values: Any, layer_idx: int) -> tuple[Any, Any]:
        """Add those of the call's tokens, [B, heads, T, d]; return all of them, [B, heads, L, d].

        Each layer calls it once per forward pass. What it returns may be views: read only.
        """
        ...


class SpecialModel(Protocol):
    """A `torch.nn.Module` with positions and a prompt of its own kind.

    `context_length` counts prompt and answer. `stop_token_ids` end an answer and show no text.
    `prompt_prefix_ids` go in front of every prompt, and `prompt_suffix_ids` behind one that does
    not end with them. `is_prompt_bidirectional` says that all tokens of a prompt but the last
    see each other; they then go through in one pass.
    """

    is_special_model: Literal[True]
    context_length: int
    stop_token_ids: tuple[int, ...]
    prompt_prefix_ids: tuple[int, ...]
    prompt_suffix_ids: tuple[int, ...]
    is_prompt_bidirectional: bool

    def positions(self, prompt_length: int, start: int, stop: int) -> Any:
        """Return the positions of tokens [start, stop) of a sequence: [k, stop - start], on CPU.

        `prompt_length` counts the prompt's prefix and suffix ids too.
        """
        ...

    def __call__(
        self,
        input_ids: Any,
        *,
        position_ids: Any,
        attention_mask: Any,
        past_key_values: KeyValueCache,
        logits_to_keep: int = 0,
    ) -> Any:
        """Return logits [B, T', V]; T' is T, or `logits_to_keep` if that is not 0.

        `input_ids` are [B, T], `position_ids` [B, k, T]. `attention_mask` is bool [B, 1, T, L]:
        True where query t may see column l; the last T columns are this call's tokens, and the
        padding of shorter rows is on their left. No query is masked everywhere.
        """
        ...
