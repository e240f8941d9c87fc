"""Requests at once through the transformers engine, beside `generate()` one after the other.

A llama of random weights (25 M parameters by default, float32) answers prompts of random text,
greedily, always to the full length. Both sides have the same threads and run by turns; each
figure is the median of the repeats, in tokens per second, with the range beside it.

    python -m benchmarks.transformers_batching [--streams 8] [--tokens 64] [--repeats 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

N_VOCAB = 8192
START_SECONDS = 120
ALPHABET = "abcdefghijklmnopqrstuvwxyz     "


def write_model(folder: Path, width: int, layers: int) -> float:
    """Write a model whose tokens are bytes, and many that no text has; return its millions."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(
        vocab_size=N_VOCAB,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return float(sum(parameter.numel() for parameter in model.parameters()) / 1e6)


class OneByOne:
    """The library's own generation in this process."""

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def rate(self, prompts: list[str], n_tokens: int) -> float:
        """Answer the prompts in turn; return tokens per second."""
        import torch

        started = time.perf_counter()
        for prompt in prompts:
            inputs: Any = self._tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            with torch.inference_mode():
                self._model.generate(
                    **inputs,
                    max_new_tokens=n_tokens,
                    min_new_tokens=n_tokens,
                    do_sample=False,
                    pad_token_id=0,
                )
        return len(prompts) * n_tokens / (time.perf_counter() - started)


@contextmanager
def server(folder: Path, streams: int) -> Iterator[str]:
    """Serve the model; yield the base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    variables = {
        "LLM_MODEL": "bench",
        "LLM_MODEL_PATH": str(folder),
        "LLM_ENGINE": "transformers",
        "MODEL_SERVER": address,
        "LIMIT_MODEL_CONCURRENCY": str(streams),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "serve"],
        env={**os.environ, **variables},  # noqa: TID251 - handed on, not read as a setting
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://{address}/v1/models", process)
        yield f"http://{address}/v1"
    finally:
        process.terminate()
        process.wait(30)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers. Raises `RuntimeError` when it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.get(url).status_code == httpx2.codes.OK:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError("the server did not start; its log is above")


async def served_rate(url: str, prompts: list[str], n_tokens: int, streams: int) -> float:
    """Answer the prompts, `streams` at a time; return tokens per second."""
    gate = asyncio.Semaphore(streams)
    async with httpx2.AsyncClient(timeout=600) as client:

        async def ask(prompt: str) -> int:
            body = {
                "model": "bench",
                "prompt": prompt,
                "max_tokens": n_tokens,
                "temperature": 0,
                "ignore_eos": True,
            }
            async with gate:
                reply = await client.post(f"{url}/completions", json=body)
            reply.raise_for_status()
            return int(reply.json()["usage"]["completion_tokens"])

        started = time.perf_counter()
        counts = await asyncio.gather(*map(ask, prompts))
        seconds = time.perf_counter() - started
    if sum(counts) != len(prompts) * n_tokens:
        raise RuntimeError("an answer was shorter than asked for")
    return sum(counts) / seconds


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=32, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=10)
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    numbers = random.Random(0)  # noqa: S311 - any text will do
    prompts = ["".join(numbers.choices(ALPHABET, k=options.prompt)) for _ in range(options.streams)]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        millions = write_model(folder, options.width, options.layers)
        alone = OneByOne(folder, threads)
        with server(folder, options.streams) as url:
            for number in range(options.repeats + 1):
                rates = {"generate(), one by one": alone.rate(prompts[:3], options.tokens)}
                for streams in (1, options.streams):
                    chosen = prompts[:3] if streams == 1 else prompts
                    rate = asyncio.run(served_rate(url, chosen, options.tokens, streams))
                    rates[f"parlm, {streams} at once"] = rate
                if number:  # the first round warms up
                    for name, rate in rates.items():
                        found.setdefault(name, []).append(rate)
    print(
        f"{millions:.1f} M parameters, {threads} threads, prompts of {options.prompt} tokens, "
        f"answers of {options.tokens}, load {os.getloadavg()[0]:.1f}"
    )
    base = statistics.median(next(iter(found.values())))
    for name, rates_ in found.items():
        middle = statistics.median(rates_)
        print(
            f"{name:24} {middle:7.1f} tokens/s [{min(rates_):.1f}-{max(rates_):.1f}] "
            f"{middle / base:5.2f} x"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
