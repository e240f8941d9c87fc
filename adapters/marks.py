"""Keep what a message says text: a special token's name in it must not become that token.

A chat template mixes its own text with that of messages, and afterwards `<|im_end|>` from the
one looks like `<|im_end|>` from the other. So before rendering, every special token's name in a
message is broken by an invisible mark; after rendering, the names that are still whole are the
template's own; then the marks are taken out again. A template's logic (trim, loops, comparisons)
sees almost the text as written, and the text that results is the same to the last character.

What this cannot see is a template that itself makes a name out of a message's letters, such as
`content | lower` or `content | replace("-", "")`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from adapters.prompts import join_texts
from engines.types import Special, Text

# Two noncharacters: Unicode keeps them for a program's internal use, no text contains them.
_AFTER = "\ufdd0"  # follows the first character of a broken name
_FRONT = "\ufdd1"  # precedes text that could be the rest of a name
_MARKS = str.maketrans("", "", _AFTER + _FRONT)


class Marked(str):
    """Text with marks in it, whose `repr` shows them as they are.

    Templates print lists and dictionaries; Python would write a mark there as an escape.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return unescape_marks(super().__repr__())


def unescape_marks(text: str) -> str:
    r"""Turn the escapes `\ufdd0` and `\ufdd1` of Python or JSON source into the marks."""
    return re.sub(
        r"\\\\|\\ufdd([01])",
        lambda found: found[0] if found[1] is None else (_AFTER, _FRONT)[int(found[1])],
        text,
    )


class Marker:
    """Breaks the names of a vocabulary's special tokens in text, and finds the whole ones."""

    def __init__(self, special_tokens: Iterable[str]) -> None:
        names = sorted({name for name in special_tokens if name})
        longer = [name for name in names if len(name) > 1]
        # A name of one character cannot be broken inside: the mark after it counts.
        single = [re.escape(name) + f"(?!{_AFTER})" for name in names if len(name) == 1]
        whole = [pattern for pattern in (_any_of(longer), *single) if pattern]
        self._whole = re.compile(f"({'|'.join(whole)})") if whole else None
        starts = [
            re.escape(first) + f"(?={_any_of(name[1:] for name in group)})"
            for first, group in groupby(names, key=lambda name: name[0])
        ]
        self._start = re.compile("|".join(starts)) if starts else None
        self._heads = {name[:end] for name in longer for end in range(1, len(name))}
        self._tails = {name[start:] for name in longer for start in range(1, len(name))}
        self._insides = "\n".join(name[1:-1] for name in longer)
        self._longest = max(map(len, names), default=0)

    def mark(self, value: Any, *, is_data: bool = False) -> Any:
        """Return a string, or each string in lists and dictionaries, with its names broken.

        Its end is broken too if template text behind it could complete a name, and its
        beginning if template text in front could. With `is_data`, as for the keys and values of
        a schema, which a template compares with words, the beginning is left alone.
        """
        if isinstance(value, str):
            return self._mark_text(value, is_data)
        if isinstance(value, Mapping):
            return {
                self._mark_text(str(key), True): self.mark(item, is_data=is_data)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.mark(item, is_data=is_data) for item in value]
        return value

    def _mark_text(self, text: str, is_data: bool) -> str:
        text = text.translate(_MARKS)
        if self._start is None or not text:
            return text
        # A template may trim, so the ends that count are those of the trimmed text.
        left = len(text) - len(text.lstrip())
        core = text.strip()
        at = {found.start() for found in self._start.finditer(text)}
        for size in range(1, min(self._longest, len(core) + 1)):
            if core[-size:] in self._heads:
                at.add(left + len(core) - size)
        pieces = []
        done = 0
        for position in sorted(at):
            pieces.append(text[done : position + 1])
            done = position + 1
        marked = _AFTER.join([*pieces, text[done:]])
        if not is_data and self._may_end_a_name(core):
            marked = marked[:left] + _FRONT + marked[left:]
        return text if marked == text else Marked(marked)

    def _may_end_a_name(self, core: str) -> bool:
        if core and len(core) < self._longest and core in self._insides:
            return True
        sizes = range(1, min(self._longest, len(core) + 1))
        return any(core[:size] in self._tails for size in sizes)

    def split(self, rendered: str) -> tuple[Text | Special, ...]:
        """Split rendered text at the names that are whole, longest first; take the marks out."""
        pieces = self._whole.split(rendered) if self._whole else [rendered]
        return join_texts(
            Special(piece) if number % 2 else Text(strip_marks(piece))
            for number, piece in enumerate(pieces)
        )


def strip_marks(text: str) -> str:
    """Return text without marks."""
    return text.translate(_MARKS)


def _any_of(words: Iterable[str]) -> str:
    """Write a regular expression for any of the words, the longest that fits.

    Common beginnings are shared: a vocabulary may have thousands of special tokens, and trying
    each at each character of a prompt would be slow.
    """
    words = sorted(set(words))
    if not words:
        return ""
    first, last = words[0], words[-1]  # sorted: what these two share, all share
    size = next((i for i, char in enumerate(first) if char != last[i : i + 1]), len(first))
    prefix = first[:size]
    rests = [word[len(prefix) :] for word in words]
    branches = [
        _any_of(group) for _, group in groupby((r for r in rests if r), key=lambda rest: rest[0])
    ]
    tail = f"(?:{'|'.join(branches)})" if branches else ""
    is_optional = tail and "" in rests
    return re.escape(prefix) + (f"{tail}?" if is_optional else tail)
