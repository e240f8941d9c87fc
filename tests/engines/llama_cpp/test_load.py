"""Many requests at once: the same answers as alone, and nothing left behind."""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adapters.builtin.parlm_tiny import ParlmTinyChatAdapter
from engines.types import Message, SamplingParams, TokensPrompt
from tests.engines.core_driving import GREEDY, answer, request, run, text_of

if TYPE_CHECKING:
    from engines.llama_cpp.core import LlamaCppCore

    MakeCore = Callable[..., LlamaCppCore]

SAMPLE = Path(__file__).parents[3] / "models" / "parlm-tiny" / "heldout_sample.jsonl"
N_REQUESTS = 10_000
N_AT_ONCE = 12


@pytest.mark.slow
def test_200_answers_under_load_are_those_given_alone(make_trained_core: MakeCore) -> None:
    render = ParlmTinyChatAdapter().render
    lines = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    prompts = [
        render([Message(m["role"], m["content"]) for m in line["messages"]]) for line in lines
    ]
    sampling = replace(GREEDY, max_tokens=80)
    core = make_trained_core(n_slots=16, max_queue=300)
    alone = [answer(core, prompt, sampling) for prompt in prompts]
    together = run(core, *(request(p, sampling, str(i)) for i, p in enumerate(prompts)))
    assert len(prompts) == 200
    assert [text_of(together[str(i)]) for i in range(200)] == alone


@pytest.mark.slow
def test_10000_requests_of_which_a_third_is_cancelled_leave_nothing(make_core: MakeCore) -> None:
    core = make_core(n_slots=4, max_queue=100)
    rng = random.Random(5)
    started = ended = cancelled = 0
    running: dict[str, int] = {}
    at_start = 0
    while started < N_REQUESTS or core.has_work():
        if started == N_REQUESTS // 10:
            at_start = _resident_bytes()
        while started < N_REQUESTS and len(running) < N_AT_ONCE:
            name = str(started)
            started += 1
            core.submit(request(_prompt(rng), _sampling(rng), name))
            running[name] = rng.randrange(1, 12) if rng.random() < 1 / 3 else 10**6
        for output in core.step():
            assert output.error is None
            if type(output.events[-1]).__name__ == "Usage":
                ended += 1
                del running[output.request_id]
        for name in [name for name, left in running.items() if left <= 0]:
            core.cancel(name)
            cancelled += 1
            del running[name]
        running = {name: left - 1 for name, left in running.items()}
    assert ended + cancelled == N_REQUESTS
    assert cancelled > N_REQUESTS / 5
    for slot in core._scheduler.slots:
        core._context.keep(slot.id, slot.cached)
        assert core._context.held(slot.id) == slot.cached
        assert core._context.keep(slot.id, 0) == 0
        assert core._context.held(slot.id) == 0
    assert _resident_bytes() - at_start < 32 * 2**20


def _prompt(rng: random.Random) -> TokensPrompt:
    shared = tuple(range(20, 20 + rng.choice([0, 20, 40])))
    return TokensPrompt(shared + tuple(rng.randrange(20, 200) for _ in range(rng.randrange(1, 60))))


def _sampling(rng: random.Random) -> SamplingParams:
    return SamplingParams(
        temperature=rng.choice([0.0, 1.0]),
        seed=1,
        max_tokens=rng.randrange(1, 24),
        n=rng.choice([1, 1, 1, 2]),
        frequency_penalty=rng.choice([0.0, 0.5]),
        stop=("e",) if rng.random() < 0.3 else (),
    )


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
