"""Generate functions as adapters bring them, over a model that is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

calls: list[dict[str, Any]] = []
running = threading.Semaphore(1)
closed = threading.Event()


class Letters:
    """A tokenizer: a token for each character, BOS in front."""

    bos_token_id = 1
    bos_token = "<s>"

    def encode(self, text: str, **_: Any) -> list[int]:
        return [1, *map(ord, text)]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(token) for token in ids if token != 1)


def load(_path: str, _arguments: dict[str, Any]) -> tuple[Any, Any]:
    return object(), Letters()


def load_without_tokenizer(_path: str, _arguments: dict[str, Any]) -> tuple[Any, Any]:
    return object(), None


def echo() -> Any:
    """Yields the prompt back, three characters at a time."""

    def generate(
        model: Any, tokenizer: Any, params: dict[str, Any], device: str, context_len: int
    ) -> Iterator[str]:
        calls.append({**params, "device": device, "context_len": context_len})
        # One at a time is part of the bargain.
        assert running.acquire(blocking=False)
        try:
            text = params["prompt"][: params["max_new_tokens"] - 1]
            for start in range(0, len(text), 3):
                yield text[start : start + 3]
        finally:
            running.release()

    return generate


def endless() -> Any:
    """Yields for ever."""

    def generate(*_: Any) -> Iterator[str]:
        closed.clear()
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    return generate


def drawn() -> Any:
    """Yields a number that torch draws."""

    def generate(*_: Any) -> Iterator[str]:
        import torch

        yield str(int(torch.randint(10**9, (1,))))

    return generate


def broken() -> Any:
    """Fails after a piece."""

    def generate(*_: Any) -> Iterator[str]:
        yield "some"
        raise ValueError("a secret of the operator")

    return generate


def none() -> Any:
    """The adapter brings none after all."""
    return None
