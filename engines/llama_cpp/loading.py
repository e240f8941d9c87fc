"""From a file to a model that is ready to run, or a sentence that says what would help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.errors import ModelLoadError
from engines.gptj.cache import converted
from engines.gptj.legacy_file import MAGIC as LEGACY_GPTJ_MAGIC
from engines.llama_cpp.binding import Context, ContextParams, DecodeError, Model
from engines.llama_cpp.config import LlamaCppOptions
from engines.llama_cpp.lora import add_adapters
from engines.llama_cpp.sizing import Size, choose_size, free_memory
from engines.llama_cpp.thread_choice import tune
from engines.load_progress import report_load_progress
from engines.threads import default_threads

GGUF_MAGIC = b"GGUF"
PERCENT_PER_REPORT = 5
# The formats llama.cpp read before GGUF (August 2023); as they stand in the file.
_LEGACY_MAGICS = (b"fmgg", b"tjgg", b"algg")


def find_gguf(path: Path) -> Path:
    """Return the file to load: this one, or what it was converted to. That may take minutes.

    Raises `ModelLoadError` with a remedy unless the file is there, and GGUF or a legacy GPT-J.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError as error:
        raise ModelLoadError(f"{path} does not exist: check LLM_MODEL_PATH") from error
    except IsADirectoryError as error:
        raise ModelLoadError(
            f"{path} is a folder: set LLM_MODEL_PATH to the .gguf file in it"
        ) from error
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error
    if magic == LEGACY_GPTJ_MAGIC:
        return _converted(path)
    if magic in _LEGACY_MAGICS:
        raise ModelLoadError(
            f"{path} is in the GGML format of before August 2023, which llama.cpp no longer "
            "reads: get a GGUF of the model, or convert it"
        )
    if magic != GGUF_MAGIC:
        raise ModelLoadError(
            f"{path} is not a GGUF file: it begins with {magic!r}. Convert the model with "
            "llama.cpp's convert_hf_to_gguf.py, or choose another engine with LLM_ENGINE"
        )
    return path


def _converted(path: Path) -> Path:
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        percent = 100 * done // total
        if percent // PERCENT_PER_REPORT > told:
            told = percent // PERCENT_PER_REPORT
            report_load_progress(f"converting {path} to GGUF, {percent} % done")

    gguf = converted(path, tell)
    report_load_progress(f"reading {gguf}, which was made of {path}")
    return gguf


@dataclass(frozen=True, slots=True)
class Weights:
    """A loaded model, its file, and the bytes of memory that were free before (None: unknown)."""

    path: Path
    model: Model
    free: int | None


def load(options: LlamaCppOptions) -> tuple[Model, Context, Size]:
    """Load a model that generates and make its context.

    Raises `ModelLoadError`; nothing is left then.
    """
    weights = load_weights(options)
    return weights.model, *open_context(weights, options)


def load_weights(options: LlamaCppOptions) -> Weights:
    """Load the weights and adapters. Raises `ModelLoadError`; nothing is left then."""
    path = find_gguf(Path(options.model_path).expanduser())
    free = free_memory()  # before the weights take theirs, which is only on first touch
    model = _load_model(path, options)
    try:
        _check_model(path, model)
        add_adapters(model, options.lora)
    except ModelLoadError:
        model.close()
        raise
    return Weights(path, model, free)


def open_context(weights: Weights, options: LlamaCppOptions) -> tuple[Context, Size]:
    """Make the context to generate in. Raises `ModelLoadError`; the model is closed then."""
    model = weights.model
    try:
        size = _choose_size(model, options, weights.free)
        context = _open_context(weights.path, model, options, size)
    except ModelLoadError:
        model.close()
        raise
    try:
        context.note = tune(model, context, options)
    except DecodeError as error:
        context.close()
        model.close()
        raise ModelLoadError(f"{weights.path} loads, but a first step failed: {error}") from error
    return context, size


def _check_model(path: Path, model: Model) -> None:
    if not (model.generates_text or model.is_encoder):
        raise ModelLoadError(
            f"{path} is {model.description}, which neither generates text from a prompt alone "
            "nor makes embeddings: choose another engine with LLM_ENGINE"
        )
    if model.trained_context_length < 1:
        raise ModelLoadError(
            f"{path} is damaged: its context is {model.trained_context_length} tokens long"
        )


def _choose_size(model: Model, options: LlamaCppOptions, free: int | None) -> Size:
    taken = model.size_bytes + sum(
        Path(lora.path).expanduser().stat().st_size for lora in options.lora
    )
    rest = None if free is None or model.is_offloaded else free - taken
    per_token = options.kv_bytes(model.kv_numbers_per_token)
    return choose_size(options, model.trained_context_length, per_token, rest)


def _load_model(path: Path, options: LlamaCppOptions) -> Model:
    try:
        return Model(str(path), options.n_gpu_layers, options.use_mmap, options.use_mlock)
    except ModelLoadError as error:
        raise ModelLoadError(
            f"llama.cpp cannot load {path}: {error}. The file may be damaged (download it "
            "again), of an architecture this version does not know, or too large for the memory"
        ) from error


def _open_context(path: Path, model: Model, options: LlamaCppOptions, size: Size) -> Context:
    params = ContextParams(
        n_slots=size.n_slots,
        context_length=size.context_length,
        n_batch=options.batch_size(size.n_slots),
        n_threads=options.n_threads or default_threads(),
        n_outputs=options.max_outputs(size.n_slots),
        n_cells=options.n_cells,
        kv_unified=options.kv_unified,
        flash_attn=options.kv_is_quantised or options.flash_attn,
        kv_type=options.kv_type,
    )
    try:
        return Context(model, params)
    except ModelLoadError as error:
        remedy = "Lower the number of slots or the context length to need less memory"
        if options.kv_is_quantised:
            remedy += f", or set kv_type to f16 if the model does not take {options.kv_type}"
        raise ModelLoadError(
            f"llama.cpp cannot run {path} with {size.n_slots} slots of {size.context_length} "
            f"tokens: {error}. {remedy}"
        ) from error
