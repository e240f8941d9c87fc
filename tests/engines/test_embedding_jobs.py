"""How requests for embeddings share a child process, with a core that only counts."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

import pytest

from engines import wire
from engines.core import Core, EmbeddedPart
from engines.embedding_jobs import MAX_JOBS, EmbeddingJobs
from engines.errors import EngineOverloaded, InvalidRequest, UnsupportedOperation
from engines.types import EmbeddingRequest
from engines.wire_types import pack_prompt, unpack_error
from tests.engines.driving import ask


class CountingCore:
    """Gives one vector a prompt, each after an empty part; a text can ask for a fault."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def embed(self, request: EmbeddingRequest) -> Generator[EmbeddedPart, None, None]:
        try:
            for index, prompt in enumerate(request.prompts):
                yield EmbeddedPart()
                if "refuse" in str(prompt):
                    raise InvalidRequest("no", "input[0]")
                if "break" in str(prompt):
                    raise RuntimeError("a bug")
                yield EmbeddedPart(((index, b"\0\0\0\0"),), prompt_tokens=2)
        finally:
            self.closed.append(request.request_id)


class Jobs:
    """The jobs over a counting core, and what they sent."""

    def __init__(self, core: object | None = None) -> None:
        self.core = CountingCore()
        self.sent: list[wire.Embedded] = []
        self.jobs = EmbeddingJobs(cast(Core, core or self.core), self.sent.append)

    def open(self, request_id: str, *texts: str) -> None:
        prompts = tuple(pack_prompt(ask(text).prompt) for text in texts)
        self.jobs.open(wire.Embed(request_id, prompts))

    def run(self) -> list[wire.Embedded]:
        while self.jobs:
            self.jobs.advance()
        return self.sent


def test_parts_then_the_last() -> None:
    jobs = Jobs()
    jobs.open("a", "one", "two")
    sent = jobs.run()
    assert [[index for index, _ in m.vectors] for m in sent] == [[], [0], [], [1], []]
    assert [m.prompt_tokens for m in sent] == [0, 2, 0, 2, 0]
    assert [m.is_last for m in sent] == [False] * 4 + [True]


def test_turns_pass_on_after_vectors_only() -> None:
    jobs = Jobs()
    jobs.open("long", "1", "2", "3")
    jobs.open("short", "1")
    order = [message.request_id for message in jobs.run()]
    assert order == ["long"] * 2 + ["short"] * 2 + ["long"] * 2 + ["short"] + ["long"] * 3


@pytest.mark.parametrize(("text", "kind"), [("refuse", "InvalidRequest"), ("break", "EngineError")])
def test_a_failure_ends_its_request_alone(
    text: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Jobs()
    jobs.open("bad", text)
    jobs.open("good", "one")
    errors = {m.request_id: m.error.kind for m in jobs.run() if m.error is not None}
    assert errors == {"bad": kind}
    assert [m.request_id for m in jobs.sent if m.is_last] == ["good"]
    assert ("a bug" in capsys.readouterr().err) == (text == "break")


def test_a_cancelled_request_is_closed_and_says_no_more() -> None:
    jobs = Jobs()
    jobs.open("a", "one", "two")
    jobs.jobs.advance()
    jobs.jobs.cancel("a")
    jobs.jobs.cancel("unknown")
    assert not jobs.jobs
    assert jobs.core.closed == ["a"]


def refusal(jobs: Jobs) -> Any:
    last = jobs.sent[-1]
    assert last.error is not None
    return unpack_error(last.error)


def test_too_many_are_told_to_come_again() -> None:
    jobs = Jobs()
    for number in range(MAX_JOBS + 1):
        jobs.open(str(number), "one")
    assert isinstance(refusal(jobs), EngineOverloaded)


def test_a_core_without_the_ability_says_so() -> None:
    jobs = Jobs(core=object())
    jobs.open("a", "one")
    assert isinstance(refusal(jobs), UnsupportedOperation)
    assert not jobs.jobs
