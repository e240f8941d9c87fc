"""From a folder to a model that is ready to run, or a sentence that says what would help."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from engines.errors import EngineError, ModelLoadError
from engines.threads import default_threads
from engines.transformers.config import LARGEST_DEFAULT_CONTEXT, TransformersOptions
from engines.transformers.models import (
    CausalRunner,
    EncoderDecoderRunner,
    ModelRunner,
    SpecialRunner,
    start_token,
    vocabulary_size,
)
from engines.transformers.pieces import vocabulary_kind
from engines.transformers.placement import choose_device, choose_dtype, loader_arguments
from engines.transformers.references import resolve
from engines.transformers.vocabulary import HuggingFaceVocabulary, Vocabulary

logger = logging.getLogger(__name__)

# As families call the number of positions, those of the first releases last.
_LENGTH_FIELDS = (
    "max_position_embeddings",
    "n_positions",
    "seq_length",
    "max_sequence_length",
    "max_seq_len",
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a loader returned, on its device."""

    model: Any
    tokenizer: Any
    device: str


@dataclass(frozen=True, slots=True)
class Runnable:
    """A model that can decode in a batch: how it is run, its tokens, its limits."""

    runner: ModelRunner
    vocabulary: Vocabulary
    end_tokens: frozenset[int]
    context_length: int
    dtype: torch.dtype
    description: str


def load(options: TransformersOptions) -> Loaded:
    """Have the loader load. Raises `ModelLoadError`, `MissingDependency`."""
    torch.set_num_threads(options.n_threads or default_threads())
    disable_progress_bar()  # it would fill the log
    device = choose_device(options)
    arguments = loader_arguments(options, device, choose_dtype(options, device))
    try:
        # By positions: classes of old name the second parameter as they like.
        result = resolve(options.loader)(options.model_path, arguments)
        model, tokenizer = result
        if isinstance(model, torch.nn.Module):
            if "device_map" not in arguments:
                model = model.to(device)
            model = model.eval()
    except EngineError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelLoadError(
            f"{options.model_path} does not fit into the memory of the {device} device: set "
            "QUANTIZE_8bit or QUANTIZE_4bit, NUM_GPUS, or serve a smaller model"
        ) from error
    except Exception as error:
        logger.exception("the loader %s failed", options.loader)
        raise ModelLoadError(
            f"{options.model_path} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if options.quantize and getattr(model, "hf_quantizer", None) is None:
        raise ModelLoadError(
            f"the loader of {options.model_path} does not load weights in {options.quantize}: "
            "unset QUANTIZE_8bit and QUANTIZE_4bit"
        )
    return Loaded(model, tokenizer, device)


def prepare(loaded: Loaded, options: TransformersOptions) -> Runnable:
    """Find out how a loaded model is run. Raises `ModelLoadError` for one that cannot be."""
    model, tokenizer = loaded.model, loaded.tokenizer
    if not isinstance(model, torch.nn.Module):
        raise ModelLoadError(
            f"the loader of {options.model_path} returned a {type(model).__name__}, not a torch "
            "model: its adapter must bring a generate function"
        )
    if getattr(model, "is_special_model", False):
        return _prepare_special(model, tokenizer, options)
    if not hasattr(model, "config") or not hasattr(model, "generation_config"):
        raise ModelLoadError(
            f"the loader of {options.model_path} returned a {type(model).__name__}, which does "
            "not generate text"
        )
    return _prepare_hugging_face(model, tokenizer, options)


def _prepare_special(model: Any, tokenizer: Any, options: TransformersOptions) -> Runnable:
    runner = SpecialRunner(model)
    end_tokens = frozenset(model.stop_token_ids)
    vocabulary = _vocabulary(tokenizer, runner.n_vocab, end_tokens)
    context_length = options.resolve_context_length(model.context_length)
    return Runnable(
        runner,
        vocabulary,
        end_tokens | vocabulary.end_tokens,
        context_length,
        next(model.parameters()).dtype,
        _describe(model, options),
    )


def _prepare_hugging_face(model: Any, tokenizer: Any, options: TransformersOptions) -> Runnable:
    is_pair = bool(model.config.is_encoder_decoder)
    end_tokens = _end_tokens(model, tokenizer)
    vocabulary = _vocabulary(tokenizer, vocabulary_size(model), end_tokens, is_pair=is_pair)
    runner: ModelRunner = CausalRunner(model)
    if is_pair:
        suffix = getattr(vocabulary, "suffix", ())
        runner = EncoderDecoderRunner(model, start_token(model), suffix)
    return Runnable(
        runner,
        vocabulary,
        end_tokens | vocabulary.end_tokens,
        _context_length(model, options),
        model.dtype,
        _describe(model, options),
    )


def _vocabulary(
    tokenizer: Any, n_vocab: int, end_tokens: frozenset[int], *, is_pair: bool = False
) -> Vocabulary:
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        vocabulary: Vocabulary = tokenizer
        return vocabulary
    # An encoder-decoder's answer is a text of its own, which begins with no space.
    strips = is_pair and vocabulary_kind(tokenizer) == "sentencepiece"
    return HuggingFaceVocabulary(tokenizer, n_vocab, end_tokens, strips_first_space=strips)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end an answer, wherever a model's files name them."""
    sources = (model.generation_config, model.config, tokenizer)
    found: set[int] = set()
    for source in sources:
        ids = getattr(source, "eos_token_id", None)
        found.update(ids if isinstance(ids, (list, tuple)) else [ids] if ids is not None else [])
    return frozenset(found)


def loaded_context_length(model: Any, options: TransformersOptions) -> int:
    """Return the tokens one request may hold, for whatever a loader returned."""
    if hasattr(getattr(model, "config", None), "get_text_config"):
        return _context_length(model, options)
    return options.context_length or LARGEST_DEFAULT_CONTEXT


def _context_length(model: Any, options: TransformersOptions) -> int:
    """Return the tokens one request may hold, prompt and answer together."""
    config = model.config.get_text_config(decoder=True)
    found = (getattr(config, name, None) for name in _LENGTH_FIELDS)
    trained = next((int(length) for length in found if length), LARGEST_DEFAULT_CONTEXT)
    if hasattr(config, "relative_attention_num_buckets") and config.is_encoder_decoder:
        # T5: so many for each side, and distances alone matter, so more is possible.
        return options.context_length or min(2 * trained, LARGEST_DEFAULT_CONTEXT)
    return options.resolve_context_length(trained)


def _describe(model: Any, options: TransformersOptions) -> str:
    if hasattr(model, "num_parameters"):
        n_parameters = model.num_parameters()  # packed ones count as what they were
    else:
        n_parameters = sum(parameter.numel() for parameter in model.parameters())
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    kind = options.quantize or dtype
    return f"{type(model).__name__}, {n_parameters / 1e6:.1f} M parameters, {kind}"
