"""The streams of inherited generate functions, made what ours are: only new text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from adapters.base import GenerateStream

CumulativeStream = Callable[[Any, Any, dict[str, Any], str, int], Iterator[Any]]
"""As `GenerateStream`, but each item is the whole text so far, or FastChat's `{"text": ...}`."""

_INCOMPLETE = "\ufffd"


def from_cumulative(func: CumulativeStream, *, echoes_prompt: bool = False) -> GenerateStream:
    """Wrap a FastChat or DB-GPT style generate function so that it yields only new text.

    With `echoes_prompt` its text begins with `params["prompt"]`, or with as much of it as
    decoding gives back, and that is cut off: declared, because an answer may begin with the
    words of a short prompt. Text that a function takes back later cannot be unsaid: only what
    goes beyond the longest text so far is yielded. A function already wrapped is returned as
    it is.
    """
    if getattr(func, "is_incremental", False):
        return func

    @wraps(func)
    def stream(
        model: Any, tokenizer: Any, params: dict[str, Any], device: str, context_len: int
    ) -> Iterator[str]:
        sent = echo_length(params) if echoes_prompt else 0
        text = ""
        for item in func(model, tokenizer, params, device, context_len):
            text = item["text"] if isinstance(item, dict) else str(item)
            # The last character may be half of one; the next item has it whole.
            whole = text.rstrip(_INCOMPLETE)
            if len(whole) > sent:
                yield whole[sent:]
                sent = len(whole)
        if len(text) > sent:
            yield text[sent:]

    stream.is_incremental = True  # type: ignore[attr-defined]
    return stream


def echo_length(params: dict[str, Any]) -> int:
    """Characters of the echo: special tokens are skipped in decoding, so they do not count.

    After DB-GPT v0.3.2's `prompt_echo_len_char`.
    """
    prompt = str(params.get("prompt", ""))
    return len(prompt.replace("</s>", "").replace("<s>", ""))
