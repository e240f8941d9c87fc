"""The llama.cpp engine without HTTP, for `benchmarks.engines`: JSON lines in, JSON lines out.

    python scripts/bench_engine.py MODEL.gguf --slots N --context TOKENS --threads N

Writes one line once the model is loaded. Then each line read asks for one wave: prompts sent at
once, each answered with exactly so many greedy tokens; the line written tells when each piece of
text came. Ends with its standard input. It stands outside `benchmarks`, which imports no engine.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import aclosing
from typing import Any, cast

import msgspec
import uvloop

from engines.base import Engine
from engines.registry import create_engine
from engines.types import GenerationRequest, PartsPrompt, SamplingParams, Text, TextDelta, Usage


async def serve(engine: Engine) -> None:
    """Run the waves that standard input asks for."""
    await engine.start()
    try:
        print("{}", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(msgspec.json.encode(await wave(engine, msgspec.json.decode(line))).decode())
            sys.stdout.flush()
    finally:
        await engine.aclose()


async def wave(engine: Engine, order: dict[str, Any]) -> dict[str, Any]:
    """Run one wave; its times are in seconds since it began."""
    sampling = SamplingParams(temperature=0.0, max_tokens=order["max_tokens"], ignore_eos=True)
    requests = [
        GenerationRequest(f"request-{number}", PartsPrompt((Text(prompt),)), sampling)
        for number, prompt in enumerate(order["prompts"])
    ]
    started = time.perf_counter()
    streams = await asyncio.gather(*(run(engine, request, started) for request in requests))
    return {"streams": streams, "seconds": time.perf_counter() - started}


async def run(engine: Engine, request: GenerationRequest, started: float) -> dict[str, Any]:
    """Run one request to its end."""
    stamps: list[float] = []
    usage = Usage(0, 0)
    async with aclosing(cast(Any, engine.generate(request))) as events:
        async for event in events:
            match event:
                case TextDelta():
                    stamps.append(time.perf_counter() - started)
                case Usage():
                    usage = event
    return {
        "stamps": stamps,
        "tokens": usage.completion_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
    }


def main() -> None:
    """Load the model and serve standard input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    engine = create_engine(
        "llama_cpp",
        model_path=options.model,
        n_slots=options.slots,
        context_length=options.context,
        n_threads=options.threads,
    )
    uvloop.run(serve(engine))


if __name__ == "__main__":
    main()
