"""One run of an adapter's own generate function, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from engines.transformers.loading import Loaded

GenerateStream = Callable[[Any, Any, dict[str, Any], str, int], Iterator[str]]
"""`(model, tokenizer, params, device, context_len)` -> pieces of new text."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A run has come to its end; `error` says why, if it failed."""

    error: Exception | None = None


class Generation:
    """A generate function at work. `next_pieces` gives what it has yielded since."""

    def __init__(
        self,
        generate: GenerateStream,
        loaded: Loaded,
        params: Mapping[str, Any],
        context_length: int,
        seed: int | None,
    ) -> None:
        self._pieces: queue.SimpleQueue[str | Ended] = queue.SimpleQueue()
        self._is_cancelled = threading.Event()
        arguments = (generate, loaded, dict(params), context_length, seed)
        self._thread = threading.Thread(
            target=self._run, args=arguments, name="generate function", daemon=True
        )
        self._thread.start()

    def next_pieces(self, timeout: float) -> list[str | Ended]:
        """Return what has come, after waiting `timeout` seconds for the first; maybe nothing."""
        pieces: list[str | Ended] = []
        try:
            pieces.append(self._pieces.get(timeout=timeout))
            while not self._pieces.empty():
                pieces.append(self._pieces.get())
        except queue.Empty:
            pass
        return pieces

    def cancel(self) -> None:
        """Have the run end before its next piece."""
        self._is_cancelled.set()

    def wait(self, timeout: float) -> bool:
        """Wait so many seconds for the thread's end; tell whether it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(
        self,
        generate: GenerateStream,
        loaded: Loaded,
        params: dict[str, Any],
        context_length: int,
        seed: int | None,
    ) -> None:
        error: Exception | None = None
        try:
            if seed is not None:
                torch.manual_seed(seed)
            with torch.inference_mode():
                pieces = generate(
                    loaded.model, loaded.tokenizer, params, loaded.device, context_length
                )
                for piece in pieces:
                    if self._is_cancelled.is_set():
                        break
                    self._pieces.put(piece)
                if self._is_cancelled.is_set() and hasattr(pieces, "close"):
                    pieces.close()
        except Exception as failure:
            error = failure
        self._pieces.put(Ended(error))
