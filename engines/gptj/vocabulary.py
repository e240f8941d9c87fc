"""What GGUF wants to know of a GPT-2 vocabulary and a legacy file does not say outright."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from engines.gptj.legacy_file import END_OF_TEXT

# Token types of GGUF.
NORMAL, CONTROL, UNUSED = 1, 3, 5


def token_types(vocabulary: Sequence[bytes]) -> list[int]:
    """Return the type of each token.

    Behind <|endoftext|> stand the names that fill the embedding up to 50400 rows and were never
    trained: no text becomes one of them.
    """
    end = vocabulary.index(END_OF_TEXT)
    return [NORMAL] * end + [CONTROL] + [UNUSED] * (len(vocabulary) - end - 1)


def token_text(token: bytes) -> str:
    """Return a token in the characters that stand for bytes in GPT-2's vocabularies."""
    return "".join(map(_ALPHABET.__getitem__, token))


def recover_merges(vocabulary: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the merges of a byte-level BPE vocabulary, which a legacy file leaves out.

    The training of such a vocabulary appends one token a merge, so a token's id is the rank of
    its merge, and the two pieces are what the merges before it make of its bytes. For GPT-2's
    own vocabulary this gives the 50,000 merges as they were published.
    """
    words = vocabulary[: vocabulary.index(END_OF_TEXT)]
    ranks = {token: rank for rank, token in enumerate(words)}
    splits = (_split(token, ranks) for token in words if len(token) > 1)
    return [pieces for pieces in splits if pieces is not None]


def _split(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes] | None:
    """The two pieces a token was merged from; None if no merge makes it."""
    own = ranks[token]
    pieces = [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 2:
        candidates = [ranks.get(left + right, own) for left, right in pairwise(pieces)]
        best = min(candidates)
        if best >= own:
            return None
        at = candidates.index(best)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces[0], pieces[1]


def _alphabet() -> list[str]:
    """The character of each byte. Source: bytes_to_unicode of openai/gpt-2, encoder.py."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_ALPHABET = _alphabet()
