"""How each kind of model is run: its prompt into memory, then its next tokens out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from engines.transformers.batch import Decoder, Prefilled, Row
from engines.transformers.columns import Columns
from engines.transformers.prefill import ChunkedPrefill, Prefill, WholePrefill, contents


class ModelRunner(Decoder, Protocol):
    """A model of one kind. `prefix` and `suffix` are ids that every prompt needs around it."""

    n_vocab: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    def prefill(self, prompt: Sequence[int]) -> Prefill:
        """Begin with a prompt, prefix and suffix included."""
        ...

    def whole(self, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
        """Return the logits [vocabulary] after an answer, computed in one pass without memory."""
        ...


class CausalRunner:
    """A decoder-only model of transformers."""

    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = first_device(model)
        self.n_vocab = vocabulary_size(model)
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def prefill(self, prompt: Sequence[int]) -> Prefill:
        """Begin with a prompt; it may be computed in pieces."""
        return ChunkedPrefill(prompt, self._prefill_chunk)

    def _prefill_chunk(self, cache: Any, tokens: Sequence[int], start: int) -> None:
        ids = torch.tensor([tokens], device=self._device)
        positions = torch.arange(start, start + len(tokens), device=self._device)[None]
        self._forward(ids, positions, None, cache)

    def decode(
        self,
        tokens: torch.Tensor,
        rows: list[Row],
        own: Columns,
        crossed: Columns,  # noqa: ARG002 - there is no encoder
    ) -> torch.Tensor:
        """Return the logits after one more token of every row."""
        positions = torch.tensor([[row.length] for row in rows], device=self._device)
        mask = own.mask(1).to(self._device) if own.has_padding else None
        return self._forward(tokens.to(self._device), positions, mask, own.cache)

    def whole(self, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
        """Return the logits after an answer."""
        ids = torch.tensor([[*prompt, *answer]], device=self._device)
        return self._model(input_ids=ids, use_cache=False).logits[0, -1]

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        options = self._options | ({"position_ids": positions} if self._takes_positions else {})
        output = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options
        )
        return output.logits[:, -1]


class EncoderDecoderRunner:
    """A model of transformers that encodes the prompt, then decodes the answer from its start."""

    prefix: tuple[int, ...] = ()

    def __init__(self, model: Any, start: int, suffix: tuple[int, ...]) -> None:
        self._model = model
        self._device = first_device(model)
        self._start = start
        self.n_vocab = vocabulary_size(model)
        self.suffix = suffix

    def prefill(self, prompt: Sequence[int]) -> Prefill:
        """Begin with a prompt; it is computed in one piece, as every token sees all others."""
        return WholePrefill(len(prompt), lambda: self._encode(prompt))

    def _encode(self, prompt: Sequence[int]) -> Prefilled:
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self._model(
            input_ids=torch.tensor([prompt], device=self._device),
            # Its keys and values are not kept: the batch decodes the start token once more.
            decoder_input_ids=torch.tensor([[self._start]], device=self._device),
            past_key_values=cache,
            use_cache=True,
        )
        return Prefilled(
            prompt_length=len(prompt),
            first_token=self._start,
            length=0,
            crossed_length=len(prompt),
            crossed=contents(cache.cross_attention_cache),
        )

    def decode(
        self,
        tokens: torch.Tensor,
        rows: list[Row],
        own: Columns,
        crossed: Columns,
    ) -> torch.Tensor:
        """Return the logits after one more token of every row."""
        # The encoder's output itself is not read again, only what the layers made of it.
        unread = torch.zeros(1, 1, 1, device=self._device, dtype=self._model.dtype)
        encoded = unread.expand(len(rows), crossed.window.width, 1)
        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=crossed.mask(0).to(self._device),
            decoder_input_ids=tokens.to(self._device),
            decoder_attention_mask=own.mask(1).to(self._device),
            past_key_values=EncoderDecoderCache(own.cache, crossed.cache),
            use_cache=True,
        )
        return output.logits[:, -1]

    def whole(self, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
        """Return the logits after an answer."""
        output = self._model(
            input_ids=torch.tensor([prompt], device=self._device),
            decoder_input_ids=torch.tensor([[self._start, *answer]], device=self._device),
            use_cache=False,
        )
        return output.logits[0, -1]


class SpecialRunner:
    """A `special.SpecialModel`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = first_device(model)
        self.prefix: tuple[int, ...] = tuple(model.prompt_prefix_ids)
        self.suffix: tuple[int, ...] = tuple(model.prompt_suffix_ids)
        probe = self.whole((*self.prefix, 0, *self.suffix), ())
        self.n_vocab = int(probe.shape[-1])

    def prefill(self, prompt: Sequence[int]) -> Prefill:
        """Begin with a prompt; it may be computed in pieces unless it is bidirectional."""
        length = len(prompt)

        def compute(cache: Any, tokens: Sequence[int], start: int) -> None:
            stop = start + len(tokens)
            mask = self._prompt_mask(length, start, stop)
            self._forward(tokens, self._positions(length, start, stop), mask, cache)

        return ChunkedPrefill(prompt, compute, is_whole=self._model.is_prompt_bidirectional)

    def _prompt_mask(self, prompt_length: int, start: int, stop: int) -> torch.Tensor:
        """Which of the tokens [0, stop) each of [start, stop) may see: [1, 1, T, L]."""
        visible = prompt_length - 1 if self._model.is_prompt_bidirectional else 0
        columns, queries = torch.arange(stop), torch.arange(start, stop)[:, None]
        return ((columns <= queries) | (columns < visible))[None, None]

    def decode(
        self,
        tokens: torch.Tensor,
        rows: list[Row],
        own: Columns,
        crossed: Columns,  # noqa: ARG002 - there is no encoder
    ) -> torch.Tensor:
        """Return the logits after one more token of every row."""
        positions = torch.cat(
            [self._positions(row.prompt_length, row.length, row.length + 1) for row in rows]
        )
        return self._forward(tokens, positions, own.mask(1)[:, None, None], own.cache)

    def whole(self, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
        """Return the logits after an answer."""
        ids = [*prompt, *answer]
        mask = self._prompt_mask(len(prompt), 0, len(ids))
        return self._forward(ids, self._positions(len(prompt), 0, len(ids)), mask, DynamicCache())[
            0
        ]

    def _positions(self, prompt_length: int, start: int, stop: int) -> torch.Tensor:
        """Return positions [1, k, stop - start]."""
        return self._model.positions(prompt_length, start, stop)[None]

    def _forward(
        self,
        tokens: torch.Tensor | Sequence[int],
        positions: torch.Tensor,
        mask: torch.Tensor,
        cache: Any,
    ) -> torch.Tensor:
        ids = tokens if isinstance(tokens, torch.Tensor) else torch.tensor([tokens])
        logits = self._model(
            ids.to(self._device),
            position_ids=positions.to(self._device),
            attention_mask=mask.to(self._device),
            past_key_values=cache,
            logits_to_keep=1,
        )
        return logits[:, -1]


def first_device(model: Any) -> torch.device:
    """Return the device that takes a model's token ids."""
    return next(model.parameters()).device


def vocabulary_size(model: Any) -> int:
    """Return the number of a model's token ids, unused ones included."""
    return int(model.config.get_text_config(decoder=True).vocab_size)


def start_token(model: Any) -> int:
    """Return the token with which an answer of an encoder-decoder model begins."""
    for config in (model.generation_config, model.config):
        token = getattr(config, "decoder_start_token_id", None)
        if token is not None:
            return int(token)
    return int(model.config.pad_token_id)
