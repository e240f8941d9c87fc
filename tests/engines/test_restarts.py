from __future__ import annotations

from dataclasses import dataclass

import pytest

from engines.restarts import Quarantine, RestartLimits, RestartPolicy, fingerprint
from engines.types import GenerationRequest, PartsPrompt, SamplingParams, Special, Text
from tests.engines.driving import ask


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_first_restart_is_immediate_and_the_delay_doubles(clock: Clock) -> None:
    policy = RestartPolicy(RestartLimits(circuit_failures=100), clock)
    assert [policy.note_failure() for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_spell_of_health_starts_the_row_anew(clock: Clock) -> None:
    policy = RestartPolicy(RestartLimits(healthy_after=180, circuit_failures=100), clock)
    for _ in range(4):
        policy.note_failure()
    policy.note_ready()
    clock.now += 179
    assert policy.note_failure() == 8
    policy.note_ready()
    clock.now += 180
    assert policy.note_failure() == 0


def test_five_failures_in_ten_minutes_open_the_circuit(clock: Clock) -> None:
    policy = RestartPolicy(RestartLimits(healthy_after=0), clock)
    delays = []
    for _ in range(6):
        policy.note_ready()
        clock.now += 60
        delays.append(policy.note_failure())
    assert delays == [0, 0, 0, 0, 60, 60]
    assert policy.is_circuit_open is True
    clock.now += 601
    assert bool(policy.is_circuit_open) is False
    policy.note_ready()
    assert policy.note_failure() == 0


def test_a_request_is_quarantined_at_its_second_crash(clock: Clock) -> None:
    quarantine = Quarantine(clock=clock)
    assert bool(quarantine) is False
    quarantine.note_crash(b"a")
    assert bool(quarantine) is True
    assert not quarantine.is_quarantined(b"a")
    quarantine.note_crash(b"a")
    assert quarantine.is_quarantined(b"a")
    assert not quarantine.is_quarantined(b"b")


def test_an_answer_clears_and_time_forgets(clock: Clock) -> None:
    quarantine = Quarantine(memory=100, clock=clock)
    quarantine.note_crash(b"a")
    quarantine.note_success(b"a")
    quarantine.note_crash(b"a")
    assert not quarantine.is_quarantined(b"a")
    quarantine.note_crash(b"a")
    assert quarantine.is_quarantined(b"a")
    clock.now += 101
    assert not quarantine.is_quarantined(b"a")


def test_the_quarantine_is_bounded(clock: Clock) -> None:
    quarantine = Quarantine(max_crashes=1, max_entries=2, clock=clock)
    for name in (b"a", b"b", b"c"):
        quarantine.note_crash(name)
    assert [quarantine.is_quarantined(name) for name in (b"a", b"b", b"c")] == [False, True, True]


def test_a_fingerprint_is_of_what_is_asked_not_of_who_asks() -> None:
    one, retry = ask("x", seed=1), ask("x", seed=1)
    assert one.request_id != retry.request_id
    assert fingerprint(one) == fingerprint(retry)
    others = [
        ask("y", seed=1),
        ask("x", seed=2),
        GenerationRequest("r", one.prompt, one.sampling, {"a": 1}),
        GenerationRequest("r", PartsPrompt((Special("x"),)), one.sampling),
        GenerationRequest("r", PartsPrompt((Text("x"),)), SamplingParams()),
    ]
    assert len({fingerprint(request) for request in [one, *others]}) == 6
