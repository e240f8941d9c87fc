"""The one place where llama-cpp-python is imported: its low-level C bindings behind few nouns.

All of it belongs to one thread. The library aborts the process on a broken invariant, so the
checks that keep its calls within bounds are made here or by the callers named.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as native
from numpy.typing import NDArray

from engines.errors import EngineError, ModelLoadError
from engines.llama_cpp.config import KvType, Pooling
from engines.llama_cpp.log import NativeLog

LOG = NativeLog()

_KV_TYPES: Mapping[KvType, int] = {
    **{"f32": native.GGML_TYPE_F32, "f16": native.GGML_TYPE_F16},
    **{"q8_0": native.GGML_TYPE_Q8_0, "q4_0": native.GGML_TYPE_Q4_0},
}

# Architectures without a memory, whose tokens see those behind them too; as of llama.cpp's
# `llama_model::create_memory`, less those that generate by diffusion.
_ENCODERS = frozenset(
    {"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2"}
    | {"jina-bert-v3", "eurobert", "gemma-embedding"}
)
_POOLINGS: Mapping[str | None, Pooling | None] = {"1": "mean", "2": "cls", "3": "last"}
_RANKING = "4"

# Bytes; no tokenizer overflows an ordinary stack on so little.
_SHORT_TEXT = 8192
# Bytes; for more, a second copy in memory costs more than it spares.
_LARGEST_STATE = 256 * 2**20


@native.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]
def _write_log(level: int, text: bytes, _: object) -> None:
    LOG.write(level, text.decode("utf-8", "replace"))


# Kept at module level: the library holds the callback for as long as the process lives.
native.llama_log_set(_write_log, None)
native.llama_backend_init()


class DecodeError(EngineError):
    """llama.cpp could not run a batch. What of it stays in memory is undefined."""

    def __init__(self, code: int, lines: tuple[str, ...]) -> None:
        reason = lines[-1] if lines else "no reason given"
        super().__init__(f"llama.cpp could not run the step (code {code}): {reason}")
        self.code = code


@dataclass(frozen=True, slots=True)
class ContextParams:
    """The size and manner of a context; lengths in tokens. See `LlamaCppOptions`.

    Of one step's tokens, `n_outputs` (None: one a slot) may have logits. With `kv_unified` all
    slots share `n_cells` (None: `context_length` each).
    """

    n_slots: int
    context_length: int
    n_batch: int
    n_threads: int
    n_outputs: int | None = None
    n_cells: int | None = None
    kv_unified: bool = False
    flash_attn: bool | None = None
    kv_type: KvType = "f16"


class Model:
    """Weights and vocabulary of one GGUF file."""

    def __init__(self, path: str, n_gpu_layers: int, use_mmap: bool, use_mlock: bool) -> None:
        params = native.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.load_mode = _load_mode(use_mmap, use_mlock)
        LOG.take_errors()
        self._model = native.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise ModelLoadError("; ".join(LOG.take_errors()) or "llama.cpp gave no reason")
        self._adapters: list[tuple[Any, float]] = []
        self.vocabulary = Vocabulary(native.llama_model_get_vocab(self._model))
        self.is_offloaded = bool(n_gpu_layers and native.llama_supports_gpu_offload())

    @property
    def pointer(self) -> Any:
        """The C model."""
        return self._model

    @property
    def trained_context_length(self) -> int:
        """Tokens the model was trained on."""
        return int(native.llama_model_n_ctx_train(self._model))

    @property
    def size_bytes(self) -> int:
        """Bytes of all weights."""
        return int(native.llama_model_size(self._model))

    @property
    def kv_numbers_per_token(self) -> int:
        """How many numbers the keys and values of one token are.

        As if all layers were like the first: too much for some with attention of several kinds,
        0 where the first has a recurrent state instead.
        """
        width = native.llama_model_n_embd(self._model) // max(
            native.llama_model_n_head(self._model), 1
        )
        prefix = f"{self.metadata('general.architecture')}.attention"
        lengths = (self.metadata(f"{prefix}.{which}_length") for which in ("key", "value"))
        per_head = sum(width if length is None else int(length) for length in lengths)
        heads = native.llama_model_n_layer(self._model) * native.llama_model_n_head_kv(self._model)
        return int(heads * per_head)

    @property
    def generates_text(self) -> bool:
        """Tell whether this is a decoder-only model, the kind this engine can run."""
        return bool(
            not self.is_encoder
            and native.llama_model_has_decoder(self._model)
            and not native.llama_model_has_encoder(self._model)
            and not native.llama_model_is_diffusion(self._model)
        )

    @property
    def is_encoder(self) -> bool:
        """Tell whether this model only reads: it makes embeddings, and no text."""
        return self.metadata("general.architecture") in _ENCODERS

    @property
    def is_reranker(self) -> bool:
        """Tell whether this model gives a score instead of a vector."""
        return self._pooling_type == _RANKING

    @property
    def pooling(self) -> Pooling | None:
        """How the file says that a text's vector is made of those of its tokens, if it does."""
        return _POOLINGS.get(self._pooling_type)

    @property
    def declares_pooling(self) -> bool:
        """Tell whether the file says anything of pooling."""
        return self._pooling_type is not None

    @property
    def _pooling_type(self) -> str | None:
        return self.metadata(f"{self.metadata('general.architecture')}.pooling_type")

    @property
    def embedding_length(self) -> int:
        """Numbers in an embedding."""
        return int(native.llama_model_n_embd_out(self._model))

    @property
    def has_recurrent_state(self) -> bool:
        """Tell whether a sequence takes memory however short it is."""
        return bool(
            native.llama_model_is_recurrent(self._model)
            or native.llama_model_is_hybrid(self._model)
        )

    @property
    def has_window(self) -> bool:
        """Tell whether some layers attend to the newest tokens only."""
        return bool(native.llama_model_n_swa(self._model))

    @property
    def description(self) -> str:
        """Architecture, size and quantisation in words: `llama 7B Q4_0`."""
        buffer = ctypes.create_string_buffer(256)
        native.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def metadata(self, key: str) -> str | None:
        """Return a value of the file's metadata as text; None if it has no such key."""
        buffer = ctypes.create_string_buffer(256)
        size = native.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        if size >= len(buffer):
            buffer = ctypes.create_string_buffer(size + 1)
            native.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if size >= 0 else None

    def add_lora(self, path: str, scale: float) -> None:
        """Load an adapter, which counts in every context opened later. Raises `ModelLoadError`."""
        LOG.take_errors()
        adapter = native.llama_adapter_lora_init(self._model, path.encode())
        if not adapter:
            raise ModelLoadError("; ".join(LOG.take_errors()) or "llama.cpp gave no reason")
        self._adapters.append((adapter, scale))

    def apply_adapters(self, context: Any) -> None:
        """Let the adapters count in a C context."""
        adapters, scales = zip(*self._adapters, strict=True) if self._adapters else ((), ())
        pointers = (native.llama_adapter_lora_p_ctypes * len(adapters))(*adapters)
        factors = (ctypes.c_float * len(scales))(*scales)
        native.llama_set_adapters_lora(context, pointers, len(adapters), factors)

    def close(self) -> None:
        """Free the weights and adapters; contexts must be closed before."""
        if self._model:
            native.llama_model_free(self._model)
            self._model = None


class Vocabulary:
    """The tokens of a model. Valid as long as the model is open.

    `pieces[id]` are the bytes a token adds to an answer (none for control tokens) and
    `names[id]` the bytes it is shown with (`</s>` for a control token). `end_tokens` are those
    with which the model ends an answer; `bos` is None where there is none. `closing` stands behind
    a text that is read as a whole, as the model was trained. `user_defined` are
    the tokens, by id, that are found in any text. `longest` is the most bytes a token has.
    """

    def __init__(self, vocab: Any) -> None:
        self._vocab = vocab
        self.n_tokens: int = native.llama_vocab_n_tokens(vocab)
        bos = native.llama_vocab_bos(vocab)
        self.bos: int | None = bos if bos >= 0 else None
        self.add_bos = bool(native.llama_vocab_get_add_bos(vocab))
        self.closing = self._closing()
        ids = range(self.n_tokens)
        self.pieces = [self._piece(token, False) for token in ids]
        self.names = [piece or self._piece(i, True) for i, piece in enumerate(self.pieces)]
        self.end_tokens = frozenset(i for i in ids if native.llama_vocab_is_eog(vocab, i))
        self.longest = max(map(len, self.names))
        self._ids = self._index()
        self.user_defined = {
            i: self.names[i].decode("utf-8", "replace")
            for i in ids
            if native.llama_vocab_get_attr(vocab, i) & native.LLAMA_TOKEN_ATTR_USER_DEFINED
        }

    def _closing(self) -> list[int]:
        if native.llama_vocab_get_add_sep(self._vocab):
            return [native.llama_vocab_sep(self._vocab)]
        if native.llama_vocab_get_add_eos(self._vocab):
            return [native.llama_vocab_eos(self._vocab)]
        return []

    def tokenize(self, text: bytes) -> list[int]:
        """Return the tokens of a text: user-defined ones may be among them, control tokens not."""
        count, tokens = self._tokenize_into(len(text) + 8, text)
        if count < 0:
            # A dummy prefix behind each user-defined token can make more tokens than bytes.
            count, tokens = self._tokenize_into(-count, text)
        if count < 0:
            raise EngineError(f"llama.cpp could not tokenise a text of {len(text)} bytes")
        return tokens[:count]

    def _tokenize_into(self, size: int, text: bytes) -> tuple[int, ctypes.Array[ctypes.c_int32]]:
        """Return the count of tokens, negative if more than `size`, and the array they are in."""
        tokens = (ctypes.c_int32 * size)()
        arguments = (self._vocab, text, len(text), tokens, size, False, False)
        return _with_stack_for(len(text), lambda: native.llama_tokenize(*arguments)), tokens

    def special_id(self, name: str) -> int | None:
        """Return the id of the token with this name; None if there is none."""
        return self._ids.get(name.encode("utf-8", "replace"))

    def _piece(self, token: int, with_control: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        size = native.llama_token_to_piece(self._vocab, token, buffer, 64, 0, with_control)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = native.llama_token_to_piece(self._vocab, token, buffer, -size, 0, with_control)
        return buffer.raw[:size]

    def _index(self) -> dict[bytes, int]:
        """Return the ids by name; a control token wins over others of the same name."""
        special = native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_USER_DEFINED
        ids: dict[bytes, int] = {}
        for token in range(self.n_tokens):
            name = native.llama_vocab_get_text(self._vocab, token)
            if native.llama_vocab_get_attr(self._vocab, token) & special:
                ids[name] = token
            else:
                ids.setdefault(name, token)
        return ids


class Batch:
    """The tokens of one step, in arrays that this side owns and fills by slices.

    `positions` count from 0 in each slot; `outputs` marks the rows whose logits are wanted.
    """

    def __init__(self, size: int) -> None:
        self.tokens = np.zeros(size, np.int32)
        self.positions = np.zeros(size, np.int32)
        self.slots = np.zeros(size, np.int32)
        self.outputs = np.zeros(size, np.int8)
        self._slots_per_token = np.ones(size, np.int32)
        # One pointer per row, each to that row's slot.
        step = self.slots.itemsize
        self._slot_pointers = self.slots.ctypes.data + step * np.arange(size, dtype=np.uintp)
        self.native = self._wrap()

    def _wrap(self) -> Any:
        int32 = ctypes.POINTER(ctypes.c_int32)
        batch = native.llama_batch()
        batch.token = self.tokens.ctypes.data_as(int32)
        batch.embd = None
        batch.pos = self.positions.ctypes.data_as(int32)
        batch.n_seq_id = self._slots_per_token.ctypes.data_as(int32)
        batch.seq_id = self._slot_pointers.ctypes.data_as(ctypes.POINTER(int32))
        batch.logits = self.outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8))
        return batch


class Context:
    """The memory (KV cache) of `n_slots` sequences, and the computation over it.

    `note` is what the log should know of it.
    """

    note = ""

    def __init__(self, model: Model, params: ContextParams) -> None:
        LOG.take_errors()
        self._context = native.llama_init_from_model(model.pointer, _context_params(params))
        if not self._context:
            raise ModelLoadError("; ".join(LOG.take_errors()) or "llama.cpp gave no reason")
        model.apply_adapters(self._context)
        self._memory = native.llama_get_memory(self._context)
        self._unified = params.kv_unified
        # Through the processor's memory a state is moved as large as it is; llama.cpp's own copy
        # between slots moves the slots' whole buffers, but stays on the device.
        self._moves_state = not (params.kv_unified or model.is_offloaded or model.has_window)
        self._logits_shape = (params.n_outputs or params.n_slots, model.vocabulary.n_tokens)
        self._logits_address: int | None = None
        self._logits = np.empty((0, 0), np.float32)
        self._state = (ctypes.c_uint8 * 0)()
        self.batch = Batch(params.n_batch)

    @property
    def pointer(self) -> Any:
        """The C context."""
        return self._context

    @property
    def n_threads(self) -> int:
        """Threads for steps of several tokens."""
        return int(native.llama_n_threads_batch(self._context))

    def set_threads(self, single: int, batch: int) -> None:
        """Set the threads for steps of one token, and for those of several."""
        native.llama_set_n_threads(self._context, single, batch)

    @property
    def slot_length(self) -> int:
        """Tokens one slot can hold."""
        return int(native.llama_n_ctx_seq(self._context))

    def decode(self, n_tokens: int) -> None:
        """Run the first `n_tokens` rows of the batch. Raises `DecodeError`."""
        self.batch.native.n_tokens = n_tokens
        code = native.llama_decode(self._context, self.batch.native)
        if code != 0:
            raise DecodeError(code, LOG.take_errors())

    def try_step(self, n_tokens: int) -> None:
        """Run a step of so many tokens, to see how long it takes, and forget it."""
        batch = self.batch
        batch.tokens[:n_tokens] = np.arange(n_tokens) % self._logits_shape[1]
        batch.positions[:n_tokens] = np.arange(n_tokens)
        batch.slots[:n_tokens] = 0
        batch.outputs[:n_tokens] = 0
        batch.outputs[n_tokens - 1] = 1
        self.decode(n_tokens)
        native.llama_synchronize(self._context)
        self.keep(0, 0)

    def logits(self, n_rows: int) -> NDArray[np.float32]:
        """Return the logits of the last step, one row per marked row of the batch, in order.

        A view that may be written to: `SamplerChain.sample` sees the changes. It is valid until
        the next `decode`.
        """
        pointer = native.llama_get_logits(self._context)
        address = ctypes.cast(pointer, ctypes.c_void_p).value
        if address != self._logits_address:
            # The buffer rarely moves, and wrapping it costs more than choosing a token from it.
            self._logits_address = address
            self._logits = np.ctypeslib.as_array(pointer, shape=self._logits_shape)
        return self._logits[:n_rows]

    def keep(self, slot: int, length: int) -> int:
        """Drop all but the first `length` tokens of a slot; return how many are left.

        A recurrent memory cannot be cut: it is emptied, and 0 returned.
        """
        if native.llama_memory_seq_rm(self._memory, slot, length, -1):
            return length
        native.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return 0

    def copy(self, source: int, slot: int, length: int) -> int:
        """Make a slot hold the first `length` tokens of another; return how many it holds."""
        native.llama_memory_seq_rm(self._memory, slot, -1, -1)
        if not (self._moves_state and self._move_state(source, slot)):
            # Between slots with buffers of their own only whole sequences can be copied.
            end = length if self._unified else -1
            native.llama_memory_seq_cp(self._memory, source, slot, -1, end)
        return self.keep(slot, length)

    def _move_state(self, source: int, slot: int) -> bool:
        """Copy all that a slot holds into an empty one; tell whether that was done."""
        size = native.llama_state_seq_get_size(self._context, source)
        if size > _LARGEST_STATE:
            return False
        if size > len(self._state):
            self._state = (ctypes.c_uint8 * size)()
        native.llama_state_seq_get_data(self._context, self._state, size, source)
        return bool(native.llama_state_seq_set_data(self._context, self._state, size, slot))

    def held(self, slot: int) -> int:
        """Return how many tokens a slot holds."""
        return int(native.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def close(self) -> None:
        """Free the context; safe to call twice."""
        if self._context:
            native.llama_free(self._context)
            self._context = None


class EmbeddingContext:
    """A computation that gives a vector for each token instead of logits.

    It has `n_slots` sequences in one buffer of `context_length` tokens together. An encoder takes
    a sequence in one step, which is why a step may be as long as the buffer.
    """

    def __init__(self, model: Model, params: ContextParams) -> None:
        LOG.take_errors()
        self._context = native.llama_init_from_model(
            model.pointer, _embedding_params(model, params)
        )
        if not self._context:
            raise ModelLoadError("; ".join(LOG.take_errors()) or "llama.cpp gave no reason")
        model.apply_adapters(self._context)
        self._memory = native.llama_get_memory(self._context)
        self._length = model.embedding_length
        self.batch = Batch(params.n_batch)

    def run(self, n_tokens: int) -> NDArray[np.float32]:
        """Run the first `n_tokens` rows of the batch; return a vector for each.

        A view that is valid until the next run. Raises `DecodeError`.
        """
        self.batch.outputs[:n_tokens] = 1
        self.batch.native.n_tokens = n_tokens
        code = native.llama_decode(self._context, self.batch.native)
        if code != 0:
            raise DecodeError(code, LOG.take_errors())
        pointer = native.llama_get_embeddings(self._context)
        return np.ctypeslib.as_array(pointer, shape=(n_tokens, self._length))

    def clear(self) -> None:
        """Forget all sequences."""
        if self._memory:
            native.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        """Free the context; safe to call twice."""
        if self._context:
            native.llama_free(self._context)
            self._context = None


# Nothing that a draw could notice, but more than the least float: a chance of 0 has no logarithm.
_LEAST_TYPICAL = 1e-30


class SamplerChain:
    """Draws tokens from what temperature, min_p, top_k, typical_p and top_p leave.

    top_k is applied first: neither temperature nor min_p changes which k are the likeliest, and
    what follows has only those to look at (25 instead of 63 us at 32,000 tokens). `seed` is 32
    bits, except 0xFFFFFFFF, which llama.cpp takes for "random".
    """

    def __init__(
        self,
        *,
        temperature: float,
        min_p: float,
        top_k: int,
        top_p: float,
        seed: int,
        typical_p: float = 1.0,
    ) -> None:
        params = native.llama_sampler_chain_default_params()
        params.no_perf = True
        self._chain = native.llama_sampler_chain_init(params)
        if top_k > 0:
            self._add(native.llama_sampler_init_top_k(top_k))
        if temperature != 1.0:
            self._add(native.llama_sampler_init_temp(temperature))
        if typical_p < 1.0:
            min_p = max(min_p, _LEAST_TYPICAL)
        if min_p > 0.0:
            self._add(native.llama_sampler_init_min_p(min_p, 1))
        if typical_p < 1.0:
            self._add(native.llama_sampler_init_typical(typical_p, 1))
        if top_p < 1.0:
            self._add(native.llama_sampler_init_top_p(top_p, 1))
        self._add(native.llama_sampler_init_dist(seed))

    def sample(self, context: Context, batch_row: int) -> int:
        """Draw a token from the logits of a marked row of the last step's batch."""
        return int(native.llama_sampler_sample(self._chain, context.pointer, batch_row))

    def close(self) -> None:
        """Free the chain and its samplers; safe to call twice."""
        if self._chain:
            native.llama_sampler_free(self._chain)
            self._chain = None

    def _add(self, sampler: Any) -> None:
        native.llama_sampler_chain_add(self._chain, sampler)


def _with_stack_for(n_bytes: int, call: Callable[[], int]) -> int:
    """Call on a stack that suits a text of this length; return what the call does.

    Some vocabularies (Falcon's, DeepSeek's) are split by `std::regex`, which recurses for each
    character of a match, about 300 bytes deep: a hundred thousand exclamation marks overflow
    the usual 8 MiB and kill the process.
    """
    if n_bytes <= _SHORT_TEXT:
        return call()
    result: list[int] = []
    usual = threading.stack_size((16 << 20) + n_bytes // 128 * 65536)
    try:
        thread = threading.Thread(target=lambda: result.append(call()))
        thread.start()
    finally:
        threading.stack_size(usual)
    thread.join()
    return result[0]


def _load_mode(use_mmap: bool, use_mlock: bool) -> int:
    modes = {
        (False, False): native.LLAMA_LOAD_MODE_NONE,
        (True, False): native.LLAMA_LOAD_MODE_MMAP,
        (False, True): native.LLAMA_LOAD_MODE_MLOCK,
        (True, True): native.LLAMA_LOAD_MODE_MMAP_MLOCK,
    }
    return int(modes[use_mmap, use_mlock])


def _context_params(params: ContextParams) -> Any:
    result = native.llama_context_default_params()
    result.n_ctx = _padded(params.n_cells or params.n_slots * _padded(params.context_length))
    result.n_seq_max = params.n_slots
    result.n_batch = params.n_batch
    result.n_ubatch = min(params.n_batch, 512)
    result.n_threads = result.n_threads_batch = params.n_threads
    result.kv_unified = params.kv_unified
    result.no_perf = True
    # Without it the output buffers are sized for whole batches.
    result.n_outputs_max = params.n_outputs or params.n_slots
    result.flash_attn_type = _flash_attention(params.flash_attn)
    result.type_k = result.type_v = _KV_TYPES[params.kv_type]
    return result


def _embedding_params(model: Model, params: ContextParams) -> Any:
    result = _context_params(params)
    result.n_ctx = _padded(params.context_length)
    result.n_ubatch = params.n_batch
    result.kv_unified = True
    result.embeddings = True
    result.n_outputs_max = result.n_outputs_max_per_seq = params.n_batch
    # The vectors of the tokens are wanted: a text may take several steps.
    if model.declares_pooling:
        result.pooling_type = native.LLAMA_POOLING_TYPE_NONE
    return result


def _flash_attention(wanted: bool | None) -> int:
    """Return llama.cpp's constant; see `LlamaCppOptions.flash_attn`."""
    if wanted is None and native.llama_supports_gpu_offload():
        return int(native.LLAMA_FLASH_ATTN_TYPE_AUTO)
    return int(
        native.LLAMA_FLASH_ATTN_TYPE_ENABLED if wanted else native.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )


def _padded(length: int) -> int:
    """Round up to 256, as llama.cpp does for each sequence."""
    return -(-length // 256) * 256
