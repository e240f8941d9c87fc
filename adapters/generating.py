"""A generate function in the manner of DB-GPT, for adapters whose pages import one from there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Any

DEFAULT_MAX_NEW_TOKENS = 256


def generate_stream(
    model: Any, tokenizer: Any, params: dict[str, Any], device: str, context_len: int
) -> Iterator[str]:
    """Generate with a transformers model and yield the whole text so far, without the prompt.

    `params` is DB-GPT's payload: `prompt`, `temperature` (0 or less is greedy), `top_p`,
    `max_new_tokens` and `stop` (a string or several; not part of the text). The tokenizer reads
    the names of special tokens in the prompt as those tokens. Closing the iterator ends the
    generation at the next token. Raises `ValueError` for a prompt that leaves no room in
    `context_len` tokens, and what the model raises.
    """
    inputs = tokenizer(params["prompt"], return_tensors="pt").to(device)
    room = context_len - inputs["input_ids"].shape[1]
    if room < 1:
        raise ValueError(f"the prompt does not fit into {context_len} tokens with an answer")
    options = {
        "input_ids": inputs["input_ids"],
        "attention_mask": inputs["attention_mask"],
        "max_new_tokens": min(int(params.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS), room),
        **_sampling(params),
    }
    with _Generation(model, tokenizer, options) as texts:
        yield from _until_stop(texts, _stops(params.get("stop")))


class _Generation:
    """The text so far of what a model generates in a thread of its own, while it is entered.

    To the model it is a streamer, which takes first the prompt's tokens and then new ones.
    """

    def __init__(self, model: Any, tokenizer: Any, options: dict[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._tokens: SimpleQueue[list[int] | None] = SimpleQueue()
        self._has_prompt = False
        self._is_over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(model, options), daemon=True)

    def __enter__(self) -> Iterator[str]:
        self._thread.start()
        return self._texts()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def put(self, value: Any) -> None:
        """Take tokens from the model."""
        if self._has_prompt:
            self._tokens.put(value.flatten().tolist())
        self._has_prompt = True

    def end(self) -> None:
        """Take the end."""
        self._tokens.put(None)

    def _run(self, model: Any, options: dict[str, Any]) -> None:
        try:
            model.generate(**options, streamer=self, stopping_criteria=[self._is_over_now])
        except Exception as error:
            self._error = error
            self.end()

    def _is_over_now(self, *_: object) -> bool:
        return self._is_over.is_set()

    def _texts(self) -> Iterator[str]:
        ids: list[int] = []
        while (new := self._tokens.get()) is not None:
            ids += new
            yield self._tokenizer.decode(ids, skip_special_tokens=True)
        if self._error is not None:
            raise self._error


def _sampling(params: dict[str, Any]) -> dict[str, Any]:
    temperature = float(params.get("temperature", 1.0))
    if temperature <= 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_p": float(params.get("top_p", 1))}


def _stops(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    return tuple(text for text in stops if text)


def _until_stop(texts: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """Yield the text so far, up to the first stop; what may become one is held back."""
    held = max(map(len, stops), default=1) - 1
    text = ""
    for text in texts:
        found = [at for at in map(text.find, stops) if at >= 0]
        if found:
            yield text[: min(found)]
            return
        yield text[: max(0, len(text) - held)]
    yield text
