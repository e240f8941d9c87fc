"""Run requests on a core to their ends, and read what they gave."""

from __future__ import annotations

from collections import defaultdict

from engines.core import Core
from engines.types import (
    Event,
    Finish,
    GenerationRequest,
    PartsPrompt,
    Prompt,
    SamplingParams,
    Special,
    Text,
    TextDelta,
    TokenLogprob,
    Usage,
)

GREEDY = SamplingParams(temperature=0.0, max_tokens=24)


def prompt(text: str) -> PartsPrompt:
    return PartsPrompt((Text(text),))


def chat(question: str) -> PartsPrompt:
    """The template of parlm-tiny: ChatML."""
    start, end = Special("<|im_start|>"), Special("<|im_end|>")
    parts = (start, Text("user\n"), Text(question), end, Text("\n"), start, Text("assistant\n"))
    return PartsPrompt(parts, add_bos=False, stop_tokens=("<|im_end|>",))


def request(
    text: Prompt | str, sampling: SamplingParams = GREEDY, request_id: str = "a"
) -> GenerationRequest:
    return GenerationRequest(request_id, prompt(text) if isinstance(text, str) else text, sampling)


def run(core: Core, *requests: GenerationRequest) -> dict[str, list[Event]]:
    """Run requests together to their ends; return the events of each."""
    for each in requests:
        core.submit(each)
    return finish(core)


def finish(core: Core) -> dict[str, list[Event]]:
    """Step until nothing is left; return the events of each request."""
    events: dict[str, list[Event]] = defaultdict(list)
    while core.has_work():
        outputs = core.step()
        assert len({output.request_id for output in outputs}) == len(outputs)
        for output in outputs:
            assert output.error is None
            events[output.request_id] += output.events
    return events


def answer(core: Core, text: Prompt | str, sampling: SamplingParams = GREEDY) -> str:
    """Run one request; return the text of its first choice."""
    return text_of(run(core, request(text, sampling))["a"])


def text_of(events: list[Event], index: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, TextDelta) and e.index == index)


def reasons(events: list[Event]) -> dict[int, str]:
    return {event.index: event.reason for event in events if isinstance(event, Finish)}


def usage(events: list[Event]) -> Usage:
    last = events[-1]
    assert isinstance(last, Usage)
    assert sum(isinstance(event, Usage) for event in events) == 1
    return last


def logprobs(events: list[Event], index: int = 0) -> list[TokenLogprob]:
    deltas = [e for e in events if isinstance(e, TextDelta) and e.index == index]
    return [logprob for delta in deltas for logprob in delta.logprobs]
