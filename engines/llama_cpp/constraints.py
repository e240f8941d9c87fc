"""Constrained output: which tokens may follow, by llguidance.

llguidance (Rust; used by vLLM, SGLang and, on request, llama.cpp itself) reads all kinds of
constraints and finds the tokens that may follow in 28 us at 32,000 tokens; llama.cpp's own grammar
sampler takes 2.6 ms, knows GBNF only, and has no bound on the work that a hostile grammar can
make. It calls nothing of Python while it works, and lets go of the interpreter's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from engines.errors import EngineOverloaded, InvalidParameter, UnsupportedParameter
from engines.llama_cpp.binding import Vocabulary
from engines.llama_cpp.constraint_grammars import refusal, to_llguidance
from engines.types import Constraint

Row = NDArray[np.float32]

VERSION = version("llguidance")
# Before it a `maxItems` of a billion takes all memory.
LEAST_VERSION = (1, 9)

# Chains of references recurse: 64 KiB of them overflow the usual 8 MiB and kill the process.
_STACK_BYTES = 256 << 20
# The other limits leave no constraint known that takes longer; what does is given up on.
_COMPILE_SECONDS = 2.0


def _limits() -> LLParserLimits:
    """Return what one constraint may take, where llguidance's own bounds allow seconds.

    About 50 ms for a step at most, and 100 MB; a schema of 450 optional members fits.
    """
    return LLParserLimits(
        initial_lexer_fuel=100_000,
        step_lexer_fuel=200_000,
        step_max_items=20_000,
        max_lexer_states=50_000,
        max_grammar_size=50_000,
        verbose_errors=False,
    )


class ConstraintCompiler:
    """Compiles constraints for one vocabulary. What llguidance needs of it is read once, late."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None
        self._thread: threading.Thread | None = None

    def compile(self, constraint: Constraint) -> CompiledConstraint:
        """Compile a constraint, in two seconds at most.

        Raises `InvalidParameter`, named after the field; `EngineOverloaded` while a constraint
        that took too long is still being compiled; `UnsupportedParameter` beside an llguidance
        that is too old to be given what clients send.
        """
        if tuple(map(int, VERSION.split(".")[:2])) < LEAST_VERSION:
            needed = ".".join(map(str, LEAST_VERSION))
            raise UnsupportedParameter(
                constraint.param, "llama_cpp", f"it needs llguidance {needed}, {VERSION} is there"
            )
        if self._thread is not None and self._thread.is_alive():
            raise EngineOverloaded("another constraint is still being compiled; try again later")
        if self._tokenizer is None:
            self._tokenizer = _tokenizer(self._vocabulary)
        compiling = _Compiling(self._tokenizer, to_llguidance(constraint))
        self._thread = _on_deep_stack(compiling)
        self._thread.join(_COMPILE_SECONDS)
        if self._thread.is_alive():
            raise refusal(constraint, f"it takes longer than {_COMPILE_SECONDS:g} s")
        if compiling.matcher is None:
            raise refusal(constraint, "it is more than the library can handle")
        if compiling.matcher.is_error():
            raise refusal(constraint, _reason(compiling.matcher))
        n_bits = self._tokenizer.vocab_size
        return CompiledConstraint(constraint, compiling.matcher, self._vocabulary, n_bits)


@dataclass(slots=True)
class _Compiling:
    """A grammar on its way to a matcher, with the first tokens found: some fail only then."""

    tokenizer: LLTokenizer
    grammar: str
    matcher: LLMatcher | None = None

    def __call__(self) -> None:
        matcher = LLMatcher(self.tokenizer, self.grammar, log_level=0, limits=_limits())
        matcher.compute_bitmask()
        self.matcher = matcher


@dataclass(frozen=True, slots=True)
class CompiledConstraint:
    """A constraint, ready to be followed by any number of choices.

    `mask_length` is in bits: one a token, and one more where no token ends an answer.
    """

    constraint: Constraint
    matcher: LLMatcher
    vocabulary: Vocabulary
    mask_length: int

    def start(self, end_tokens: Collection[int]) -> ConstraintState:
        """Return the state of one choice, which the `end_tokens` end."""
        return ConstraintState(self, end_tokens)


class ConstraintState:
    """How far one choice has followed its constraint.

    `allows_only_end` is about the row restricted last. `error` says that the constraint became
    too much for its limits on the way; nothing is restricted from then on.
    """

    def __init__(self, compiled: CompiledConstraint, end_tokens: Collection[int]) -> None:
        n_tokens = compiled.vocabulary.n_tokens
        self.error: InvalidParameter | None = None
        self.allows_only_end = False
        self._constraint = compiled.constraint
        self._matcher = compiled.matcher.deep_copy()
        self._end_tokens = frozenset(end_tokens)
        self._ends = np.fromiter(self._end_tokens, np.intp)
        # Where end-of-generation tokens are ignored they still are no text.
        self._no_text = np.fromiter(compiled.vocabulary.end_tokens | self._end_tokens, np.intp)
        self._n_tokens = n_tokens
        self._bits = np.zeros(-(-compiled.mask_length // 32), np.int32)
        self._address = self._bits.ctypes.data

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow."""
        return self.error is None and self._matcher.is_stopped()

    def restrict(self, row: Row) -> None:
        """Write minus infinity into a row of logits for every token that may not follow.

        End tokens may follow exactly when the constraint is satisfied.
        """
        if self.error is not None:
            return
        self._matcher.unsafe_compute_mask_ptr(self._address, self._bits.nbytes)
        if self._matcher.is_error():
            self._fail(_reason(self._matcher))
            return
        bits = np.unpackbits(self._bits.view(np.uint8), count=self._n_tokens, bitorder="little")
        allowed = bits.view(np.bool_)
        allowed[self._no_text] = False
        self.allows_only_end = not allowed.any()
        is_satisfied = self._matcher.is_accepting()
        if self.allows_only_end and not is_satisfied:
            self._fail("the vocabulary has no token for what must follow")
            return
        allowed[self._no_text if self.allows_only_end else self._ends] = is_satisfied
        np.copyto(row, -np.inf, where=~allowed)

    def accept(self, token: int) -> None:
        """Note the token that was chosen."""
        if self.error is not None or token in self._end_tokens:
            return
        if not self._matcher.consume_token(token):
            self._fail(_reason(self._matcher))

    def _fail(self, reason: str) -> None:
        self.error = refusal(self._constraint, reason)


class _Tokens:
    """A vocabulary as llguidance wants it; a text it tokenises only to see whether it can."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        pairs = list(zip(vocabulary.pieces, vocabulary.names, strict=True))
        self.tokens = [piece or name for piece, name in pairs]
        self.special_token_ids = [token for token, (piece, _) in enumerate(pairs) if not piece]
        self.eos_token_id = min(vocabulary.end_tokens, default=None)
        self.bos_token_id = vocabulary.bos
        self._tokenize = vocabulary.tokenize

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenize(text)


def _tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    """Read a vocabulary: 60 ms for 32,000 tokens."""
    tokens = TokenizerWrapper(_Tokens(vocabulary))
    return LLTokenizer(tokens, eos_token=sorted(vocabulary.end_tokens) or None)


def _reason(matcher: LLMatcher) -> str:
    """Return why a matcher failed."""
    reason: str = matcher.get_error()
    if reason.startswith("NoExtension"):
        return "no text can satisfy it"
    return reason


def _on_deep_stack(call: _Compiling) -> threading.Thread:
    """Start a thread whose stack is deep; memory is taken as it is used."""
    usual = threading.stack_size(_STACK_BYTES)
    try:
        thread = threading.Thread(target=call, name="constraint", daemon=True)
        thread.start()
    finally:
        threading.stack_size(usual)
    return thread
