"""The bytes that each token of a Hugging Face tokenizer adds to a text.

Kinds of vocabulary: byte-level BPE (GPT-2's alphabet stands for bytes), plain bytes (ByT5: the
character of each byte's number), SentencePiece ("▁" stands for a space, `<0x41>` for a byte), and
any other, whose tokens are decoded one by one behind another token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "▁"


def token_pieces(tokenizer: Any) -> list[bytes]:
    """Return the bytes of every token by its id; none for special tokens and unused ids."""
    names = token_names(tokenizer)
    added = {i: token for i, token in tokenizer.added_tokens_decoder.items() if i < len(names)}
    plain = [None if i in added else name for i, name in enumerate(names)]
    kind = vocabulary_kind(tokenizer)
    if kind == "byte_level":
        pieces = _byte_level(plain)
    elif kind == "bytes":
        pieces = [(name or "").encode("latin-1") for name in plain]
    elif kind == "sentencepiece":
        pieces = [_sentencepiece(name) if name is not None else b"" for name in plain]
    else:
        pieces = _decoded(tokenizer, plain)
    for i, token in added.items():
        pieces[i] = token.content.encode()
    for i in special_tokens(tokenizer):
        pieces[i] = b""
    return pieces


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Return the names of the control tokens by their ids."""
    added = tokenizer.added_tokens_decoder.items()
    special = {i: token.content for i, token in added if token.special}
    named = tokenizer.all_special_tokens
    return special | dict(zip(tokenizer.convert_tokens_to_ids(named), named, strict=True))


def token_names(tokenizer: Any) -> list[str | None]:
    """Return every token's name in the vocabulary by its id; None for unused ids."""
    ids = tokenizer.get_vocab()
    names: list[str | None] = [None] * (max(ids.values(), default=-1) + 1)
    for name, i in ids.items():
        names[i] = name
    return names


def vocabulary_kind(tokenizer: Any) -> str:
    """Return "byte_level", "bytes", "sentencepiece", or "other"."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _slow_kind(tokenizer)
    decoders = list(_decoders(json.loads(backend.to_str()).get("decoder")))
    kinds = {decoder.get("type") for decoder in decoders}
    if "ByteLevel" in kinds:
        return "byte_level"
    is_spaced = any(decoder.get("pattern") == {"String": _SPACE} for decoder in decoders)
    return "sentencepiece" if is_spaced or "Metaspace" in kinds else "other"


def _slow_kind(tokenizer: Any) -> str:
    if hasattr(tokenizer, "byte_decoder"):
        return "byte_level"
    if hasattr(tokenizer, "sp_model"):
        return "sentencepiece"
    plain = tokenizer.get_vocab().keys() - set(tokenizer.added_tokens_encoder)
    return "bytes" if all(len(name) == 1 and ord(name) < 256 for name in plain) else "other"


def _decoders(decoder: dict[str, Any] | None) -> Iterable[dict[str, Any]]:
    """Yield a decoder of `tokenizer.json`, or those it is a sequence of."""
    if decoder is None:
        return
    if decoder.get("type") == "Sequence":
        for inner in decoder["decoders"]:
            yield from _decoders(inner)
    else:
        yield decoder


def _byte_level(names: Iterable[str | None]) -> list[bytes]:
    values = {character: byte for byte, character in bytes_to_unicode().items()}
    return [_in_alphabet(name or "", values) for name in names]


def _in_alphabet(name: str, values: dict[str, int]) -> bytes:
    # A token outside the alphabet is not from its training; it can only mean itself.
    if any(character not in values for character in name):
        return name.encode()
    return bytes(values[character] for character in name)


def _sentencepiece(name: str) -> bytes:
    byte = _BYTE.fullmatch(name)
    if byte is not None:
        return bytes.fromhex(byte.group(1))
    return name.replace(_SPACE, " ").encode()


def _decoded(tokenizer: Any, names: list[str | None]) -> list[bytes]:
    """Decode each token behind another, so that what is only at a text's start is not lost."""
    known = [i for i, name in enumerate(names) if name is not None]
    if not known:
        return [b""] * len(names)
    anchor = known[len(known) // 2]
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    start = tokenizer.decode([anchor], **options)
    pieces = [b""] * len(names)
    for i in known:
        pieces[i] = tokenizer.decode([anchor, i], **options)[len(start) :].encode()
    return pieces
