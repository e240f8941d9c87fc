"""Crashes, hangs and closings of an engine's child process, with real processes and signals."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from engines.errors import (
    EngineCrashed,
    EngineError,
    EngineOverloaded,
    EngineUnavailable,
    InvalidRequest,
    ModelLoadError,
    QuarantinedRequest,
    UnsupportedParameter,
)
from engines.restarts import RestartLimits
from engines.supervisor import Limits, SupervisedEngine
from engines.types import MessagesPrompt, TextDelta
from engines.watchdog import WatchLimits
from tests.engines.driving import ask, collect, eventually, stream, text_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

EAGER = RestartLimits(longest_delay=0.0, circuit_failures=1000)
ROOT = Path(__file__).parents[2]


# Servers run on uvloop, the command line and other systems on asyncio.
on_both_loops = pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)


def supervised(limits: Limits | None = None, **options: Any) -> SupervisedEngine:
    return SupervisedEngine(
        name="echo", core="engines.echo_core:create_core", options=options, limits=limits
    )


@asynccontextmanager
async def running(limits: Limits | None = None, **options: Any) -> AsyncIterator[SupervisedEngine]:
    async with aclosing(supervised(limits, **options)) as engine:
        await engine.start()
        yield engine


def child_pids() -> set[int]:
    """Children of this process, zombies included."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def is_alive(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False


def open_fds() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def pid_of(engine: SupervisedEngine) -> int:
    assert engine.pid is not None
    return engine.pid


def what_others_see(pid: int) -> tuple[bytes, bytes]:
    process = Path(f"/proc/{pid}")
    return (process / "environ").read_bytes(), (process / "cmdline").read_bytes()


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    # What an event loop opens for its first process, and keeps.
    await (await asyncio.create_subprocess_exec("true", stderr=subprocess.PIPE)).communicate()
    tasks, fds, children = len(asyncio.all_tasks()), open_fds(), child_pids()
    yield
    await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) == tasks
    assert child_pids() == children
    assert open_fds() <= fds


@on_both_loops
@pytest.mark.parametrize("kind", ["exit", "segfault", "kill", "raise"])
async def test_a_crash_ends_its_streams_and_the_engine_comes_back(kind: str) -> None:
    async with running(crash_kind=kind, crash_at=2, fault_trigger="boom") as engine:
        first_pid = engine.pid
        other = asyncio.create_task(collect(engine, ask("bystander", ignore_eos=True)))
        await asyncio.sleep(0.02)
        with pytest.raises(EngineCrashed):
            await collect(engine, ask("boom boom boom"))
        with pytest.raises(EngineCrashed):
            await other
        assert not engine.health().is_ready
        await eventually(lambda: engine.health().is_ready)
        assert engine.pid != first_pid
        assert text_of(await collect(engine, ask("all is well"))) == "all is well"


@on_both_loops
async def test_a_killed_child_is_noticed_within_a_second() -> None:
    async with running(tokens_per_second=20) as engine, stream(engine, _endless()) as events:
        await anext(events)
        killed = time.monotonic()
        os.kill(pid_of(engine), signal.SIGKILL)
        with pytest.raises(EngineCrashed):
            async for _ in events:
                pass
        assert time.monotonic() - killed < 1
        assert "died" in engine.health().detail
        with pytest.raises(EngineUnavailable) as caught:
            await collect(engine, ask())
        assert 1 <= caught.value.retry_after <= 60


def _endless() -> Any:
    return ask("for ever ", ignore_eos=True)


async def test_an_idle_childs_death_is_noticed_too() -> None:
    async with running(Limits(restart=EAGER)) as engine:
        pid = pid_of(engine)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: engine.pid not in (None, pid) and engine.health().is_ready)
        assert await collect(engine, ask())


STALL = Limits(watch=WatchLimits(stall_timeout=1.5, step_timeout=3.0), restart=EAGER)


@on_both_loops
async def test_a_stopped_child_is_killed_after_the_stall_timeout() -> None:
    async with running(STALL, tokens_per_second=50) as engine, stream(engine, _endless()) as events:
        await anext(events)
        pid, stopped = pid_of(engine), time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(EngineCrashed):
            async for _ in events:
                pass
        assert 1.0 < time.monotonic() - stopped < 1.5 + 5  # the bound is for busy machines
        assert not is_alive(pid)
        await eventually(lambda: engine.health().is_ready)


@pytest.mark.parametrize(("kind", "least"), [("sleep", 1.0), ("spin", 2.4)])
async def test_a_hang_is_ended_sooner_when_it_does_not_compute(kind: str, least: float) -> None:
    async with running(STALL, hang_at=1, hang_kind=kind, fault_trigger="hang") as engine:
        started = time.monotonic()
        with pytest.raises(EngineCrashed):
            await collect(engine, ask("hang hang hang"))
        assert least < time.monotonic() - started < least + 6
        await eventually(lambda: engine.health().is_ready)
        assert await collect(engine, ask("fine"))


async def test_a_hang_is_found_although_everybody_left() -> None:
    async with running(STALL, hang_at=1, fault_trigger="hang") as engine:
        pid = pid_of(engine)
        async with stream(engine, ask("hang hang hang")) as events:
            await anext(events)
            await asyncio.sleep(0.1)  # until it hangs
        await eventually(lambda: engine.pid not in (None, pid) and engine.health().is_ready)
        assert await collect(engine, ask("fine"))


async def test_a_slow_engine_is_left_alone() -> None:
    async with running(STALL, prefill_seconds=2.0) as engine:
        pid = engine.pid
        assert text_of(await collect(engine, ask("patience"))) == "patience"
        await asyncio.sleep(1.7)  # idle for longer than a stall
        assert engine.pid == pid


async def test_a_pause_of_our_own_is_not_held_against_the_child() -> None:
    async with running(STALL, tokens_per_second=50) as engine, stream(engine, _endless()) as events:
        await anext(events)
        time.sleep(2.5)  # noqa: ASYNC251 - the point: our event loop stands still
        for _ in range(100):
            await anext(events)


async def test_a_slow_load_is_waited_for() -> None:
    async with running(STALL, load_seconds=2.5) as engine:
        assert engine.health().is_ready
        assert engine.context_length == 8192


async def test_health_says_loading_and_requests_are_refused_meanwhile() -> None:
    async with aclosing(supervised(load_seconds=5)) as engine:
        starting = asyncio.create_task(engine.start())
        await eventually(lambda: engine.pid is not None)
        assert engine.health().detail == "loading"
        with pytest.raises(EngineUnavailable, match="loading"):
            await collect(engine, ask())
        await engine.aclose()
        with pytest.raises(EngineUnavailable):
            await starting


async def test_a_load_that_takes_too_long_is_ended() -> None:
    limits = Limits(watch=WatchLimits(stall_timeout=1, load_timeout=0.5))
    async with aclosing(supervised(limits, load_seconds=60)) as engine:
        with pytest.raises(ModelLoadError, match=r"did not load within 0\.5 s"):
            await engine.start()


async def test_a_load_that_comes_further_takes_as_long_as_it_takes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = Limits(watch=WatchLimits(load_timeout=1.5))
    options = {"steps": 8, "seconds": 0.4}
    engine = SupervisedEngine(
        name="slow", core="tests.engines.slow_core:create_core", options=options, limits=limits
    )
    async with aclosing(engine):
        with caplog.at_level("INFO", logger="engines.supervisor"):
            start = asyncio.create_task(engine.start())
            await eventually(lambda: "loading: step" in engine.health().detail)
            with pytest.raises(EngineUnavailable, match=r"not available: loading$"):
                await collect(engine, ask())
            await start
        assert engine.health().is_ready
    assert "slow: step" in caplog.text


async def test_a_load_whose_progress_ends_is_ended() -> None:
    limits = Limits(watch=WatchLimits(stall_timeout=1, load_timeout=1.5))
    options = {"steps": 1, "seconds": 60}
    engine = SupervisedEngine(
        name="slow", core="tests.engines.slow_core:create_core", options=options, limits=limits
    )
    async with aclosing(engine):
        with pytest.raises(ModelLoadError, match=r"did not load within 1\.5 s"):
            await engine.start()


@on_both_loops
async def test_a_failed_first_load_is_raised_and_not_tried_again() -> None:
    async with aclosing(supervised(fail_load=True)) as engine:
        with pytest.raises(ModelLoadError, match="told to fail"):
            await engine.start()
        assert engine.pid is None
        assert "told to fail" in engine.health().detail
        with pytest.raises(ModelLoadError):
            await engine.start()


@pytest.mark.parametrize("kind", ["exit", "segfault", "kill"])
async def test_a_crash_while_loading_is_a_load_error(kind: str) -> None:
    async with aclosing(supervised(crash_load=True, crash_kind=kind)) as engine:
        with pytest.raises(ModelLoadError, match=r"status 3|SIGSEGV|SIGKILL"):
            await engine.start()


@pytest.mark.parametrize("core", ["engines.nowhere:create", "engines.echo:nothing"])
async def test_a_core_that_is_not_there_is_a_load_error(core: str) -> None:
    async with aclosing(SupervisedEngine(name="x", core=core, options={})) as engine:
        with pytest.raises(ModelLoadError, match=r"nowhere|nothing"):
            await engine.start()


async def test_unknown_options_are_a_load_error() -> None:
    async with aclosing(supervised(colour="red")) as engine:
        with pytest.raises(ModelLoadError, match="colour"):
            await engine.start()


async def test_ten_crashes_in_a_row_leave_nothing_behind() -> None:
    async with running(Limits(restart=EAGER, max_crashes_per_request=99), crash_at=1) as engine:
        fds = tasks = children = 0
        for cycle in range(10):
            with pytest.raises(EngineCrashed):
                await collect(engine, ask("x", ignore_eos=True))
            await eventually(lambda: engine.health().is_ready)
            if cycle == 0:
                fds, tasks = open_fds(), len(asyncio.all_tasks())
                children = len(child_pids())
        assert open_fds() <= fds
        assert len(asyncio.all_tasks()) == tasks
        assert len(child_pids()) == children


async def test_a_request_that_crashes_twice_is_not_run_a_third_time() -> None:
    async with running(Limits(restart=EAGER), crash_at=1, fault_trigger="boom") as engine:
        for _ in range(2):
            with pytest.raises(EngineCrashed):
                await collect(engine, ask("boom boom"))
            await eventually(lambda: engine.health().is_ready)
        pid = engine.pid
        with pytest.raises(QuarantinedRequest) as caught:
            await collect(engine, ask("boom boom"))
        assert isinstance(caught.value, InvalidRequest)
        assert engine.pid == pid
        assert await collect(engine, ask("something else"))


async def test_who_only_ran_beside_the_culprit_is_cleared_by_an_answer() -> None:
    limits = Limits(restart=EAGER, max_crashes_per_request=2)
    async with running(limits, crash_at=1, fault_trigger="boom", tokens_per_second=50) as engine:
        for round_ in range(3):
            bystander = asyncio.create_task(collect(engine, ask("innocent words here")))
            await asyncio.sleep(0.01)
            with pytest.raises(EngineCrashed):
                await collect(engine, ask(f"boom {round_}"))
            with pytest.raises(EngineCrashed):
                await bystander
            await eventually(lambda: engine.health().is_ready)
            assert await collect(engine, ask("innocent words here"))


async def test_the_third_crash_waits() -> None:
    async with running(crash_at=0, fault_trigger="boom") as engine:
        for _ in range(2):
            with pytest.raises(EngineCrashed):
                await collect(engine, ask("boom"))
            await eventually(lambda: engine.pid is None)
            delay = await eventually(lambda: engine.health().is_ready)
        assert delay > 0.9


async def test_errors_of_the_child_keep_class_and_fields() -> None:
    async with running(max_requests=1) as engine:
        with pytest.raises(UnsupportedParameter) as unsupported:
            await collect(engine, ask(logprobs=2))
        assert unsupported.value.param == "logprobs"
        assert unsupported.value.code == "unsupported_parameter"
        async with stream(engine, _endless()) as events:
            await anext(events)
            with pytest.raises(EngineOverloaded) as overloaded:
                await collect(engine, ask())
            assert overloaded.value.retry_after == 1


async def test_text_that_no_tokenizer_takes_is_refused() -> None:
    async with running() as engine:
        with pytest.raises(InvalidRequest, match="surrogate"):
            await collect(engine, ask("\ud800"))
        with pytest.raises(InvalidRequest, match="surrogate"):
            await engine.tokenize(ask("\ud800").prompt)
        assert await collect(engine, ask())


async def test_a_request_above_the_frame_cap_is_refused() -> None:
    async with running() as engine:
        with pytest.raises(InvalidRequest, match="cap"):
            await collect(engine, ask("x" * (65 * 1024 * 1024)))
        assert await collect(engine, ask())


async def test_tokenize_answers_beside_a_stream_and_fails_with_the_child() -> None:
    async with running(STALL, hang_at=1, fault_trigger="hang") as engine:
        assert len(await engine.tokenize(ask("one two three").prompt)) == 3
        assert await engine.tokenize(MessagesPrompt(())) == ()
        async with stream(engine, ask("hang hang")) as events:
            await anext(events)
            await asyncio.sleep(0.1)  # until it hangs
            with pytest.raises(EngineCrashed):
                await engine.tokenize(ask("never").prompt)


@on_both_loops
async def test_closing_a_stream_cancels_under_level_triggered_cancellation() -> None:
    async with running(max_requests=1) as engine:
        for _ in range(20):
            with anyio.move_on_after(0.01):
                async with stream(engine, _endless()) as events:
                    async for _event in events:
                        pass
        assert text_of(await collect(engine, ask("free again"))) == "free again"


async def test_a_slow_reader_stalls_nobody() -> None:
    async with running() as engine, stream(engine, _endless()) as slow:
        await anext(slow)
        started = time.monotonic()
        assert text_of(await collect(engine, ask("quick one"))) == "quick one"
        assert time.monotonic() - started < 1
        assert isinstance(await anext(slow), TextDelta)


@on_both_loops
async def test_cancelling_start_closes_the_engine() -> None:
    engine = supervised(load_seconds=60)
    with anyio.move_on_after(0.3) as scope:
        await engine.start()
    assert scope.cancelled_caught
    await eventually(lambda: engine.pid is None)
    await engine.aclose()
    with pytest.raises(EngineUnavailable):
        await engine.start()


@on_both_loops
async def test_closing_goes_on_when_it_is_cancelled() -> None:
    engine = supervised()
    await engine.start()
    pid = pid_of(engine)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await engine.aclose()
    await eventually(lambda: not is_alive(pid))
    await engine.aclose()


@on_both_loops
async def test_a_child_that_will_not_exit_is_killed_after_the_grace() -> None:
    async with running(Limits(grace=0.3), hang_at=1) as engine:
        pid = pid_of(engine)
        async with stream(engine, ask("a b c")) as events:
            await anext(events)
            await asyncio.sleep(0.1)  # until it hangs
        started = time.monotonic()
        await engine.aclose()
        assert time.monotonic() - started < 1.5
        assert not is_alive(pid)


async def test_closing_between_two_children_does_not_wait_for_the_next() -> None:
    slow = RestartLimits(circuit_failures=1, circuit_delay=60)
    async with running(Limits(restart=slow), crash_at=0) as engine:
        with pytest.raises(EngineCrashed):
            await collect(engine, ask())
        await eventually(lambda: "restarting" in engine.health().detail)
        with pytest.raises(EngineUnavailable) as caught:
            await collect(engine, ask())
        assert 55 <= caught.value.retry_after <= 60
        started = time.monotonic()
        await engine.aclose()
        assert time.monotonic() - started < 1


async def test_a_restart_that_fails_is_tried_again(tmp_path: Path) -> None:
    # The second child finds a broken model, the third a good one.
    module = tmp_path / "flaky_core.py"
    module.write_text(
        "from pathlib import Path\n"
        "from engines.echo import create_core\n"
        "from engines.errors import ModelLoadError\n"
        "def create(log, **options):\n"
        "    with Path(log).open('a') as file:\n"
        "        file.write('x')\n"
        "    if len(Path(log).read_text()) == 2:\n"
        "        raise ModelLoadError('bad disk')\n"
        "    return create_core(**options)\n"
    )
    engine = SupervisedEngine(
        name="flaky",
        core="flaky_core:create",
        options={"log": tmp_path / "log", "crash_at": 0, "fault_trigger": "boom"},
        environment={"PYTHONPATH": str(tmp_path)},
        limits=Limits(restart=EAGER),
    )
    async with aclosing(engine):
        await engine.start()
        with pytest.raises(EngineCrashed):
            await collect(engine, ask("boom"))
        await eventually(lambda: engine.health().is_ready)
        assert len((tmp_path / "log").read_text()) == 3


ORPHANAGE = """
import asyncio, sys
from engines.supervisor import SupervisedEngine
async def main():
    engine = SupervisedEngine(name="echo", core="engines.echo:create_core", options={options})
    {start}
    while engine.pid is None:
        await asyncio.sleep(0.01)
    print(engine.pid, flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({}, "await engine.start()"),
        ({"load_seconds": 600}, "task = asyncio.create_task(engine.start())"),
    ],
    ids=["idle", "loading"],
)
async def test_a_dead_parent_leaves_no_orphan(options: dict[str, Any], start: str) -> None:
    def hold_and_kill() -> int:
        script = ORPHANAGE.format(options=options, start=start)
        parent = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        with parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert is_alive(pid)
            parent.kill()
        return pid

    pid = await asyncio.to_thread(hold_and_kill)
    await eventually(lambda: not is_alive(pid), timeout=2)


async def test_the_child_is_found_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "engines.py").write_text("raise SystemExit('the wrong engines')")
    monkeypatch.chdir(tmp_path)
    async with running() as engine:
        assert engine.health().is_ready


async def test_the_child_inherits_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_API_KEY", "sk-canary")
    monkeypatch.setenv("HF_TOKEN", "hf-canary")
    async with running() as engine:
        environment, command = what_others_see(pid_of(engine))
    assert b"PATH" in environment
    assert b"canary" not in environment + command


async def test_what_a_child_prints_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="engines.child_process")
    async with running(crash_kind="raise", crash_at=0) as engine:
        with pytest.raises(EngineError):
            await collect(engine, ask())
    assert any("RuntimeError: the echo engine was told" in line for line in caplog.messages)
    assert all(line.startswith("echo: ") for line in caplog.messages)


@on_both_loops
async def test_one_engine_serves_from_a_thread_of_its_own() -> None:
    def serve(run: Callable[..., Any]) -> str:
        async def main() -> str:
            async with running() as engine:
                return text_of(await collect(engine, ask("in a thread")))

        return str(run(main()))

    runner = asyncio.run
    if "uvloop" in type(asyncio.get_running_loop()).__module__:
        import uvloop

        runner = uvloop.run
    assert await asyncio.to_thread(serve, runner) == "in a thread"
