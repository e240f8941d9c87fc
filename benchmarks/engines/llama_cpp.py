"""Speed of GGUF serving on this machine: our server beside others, under the same load.

    make bench-llama-cpp ARGS="--llama-server PATH"      (or python -m benchmarks.engines.llama_cpp)

Models are of random weights, 25 and 200 million parameters, q8_0, written on first use; or name
GGUF files. The peers of a model get the same slots, context a slot and threads, stay loaded, and
are measured in turns (A B C A B C ...), one at a time. A wave is n simultaneous requests, greedy,
each for exactly `--tokens` new tokens; a round is as many waves as begin within `--seconds`. Every
wave has prompts of its own; only of a pair of waves with a shared prefix, cold and warm, the
second repeats the prefix of the first. Table cells are the median of the rounds and
[least-greatest].

`parlm-engine` is our engine without HTTP: the difference to `parlm` is what HTTP costs. "others'
cores" is how much CPU went to neither the measured peer nor the client; where it is large, the
figures are worth little. Needs Linux or macOS, and the extras `llama_cpp` and `bench`.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import uvloop

from benchmarks.engines.figures import figures
from benchmarks.engines.load import LoadError
from benchmarks.engines.machine import about_machine
from benchmarks.engines.measure import Measured, measured_wave
from benchmarks.engines.options import Model, Options, parse
from benchmarks.engines.peers import ENGINE, Peer, RemotePeer, start_engine, start_server
from benchmarks.engines.plot import draw
from benchmarks.engines.random_gguf import SHAPES, ensure_model
from benchmarks.engines.report import Results, Row, to_json, to_markdown
from benchmarks.engines.servers import Absent, Setup
from benchmarks.engines.workloads import SharedPrefix, Unlike, Workload

PREFIX_TOKENS, TAIL_TOKENS = 416, 96


def workloads(options: Options) -> Iterator[Workload]:
    """Yield what the options ask for."""
    for prompt_tokens in options.prompts:
        for streams in options.streams:
            yield Unlike(streams, prompt_tokens)
    if options.shared:
        yield SharedPrefix(options.shared, PREFIX_TOKENS, TAIL_TOKENS)


class Run:
    """A run of the benchmark: measures, and keeps what it saw in `results`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.workloads = list(workloads(options))
        about = about_machine("llama-cpp-python", "xllamacpp") | {
            "each request": f"{options.tokens} new tokens, greedy",
            "rounds": f"{options.repeats} of at least {options.seconds:g} s",
            "seed": str(options.seed),
        }
        self.results = Results(about, notes=[], rows=[])

    async def measure(self) -> None:
        """Measure every peer with every model. Being told to end, it ends the servers first."""
        if (task := asyncio.current_task()) is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        for model in self.options.models:
            with ExitStack() as stack:
                peers = await self._start(self._setup(model), stack)
                await self._measure_model(_title(model), peers)

    def _setup(self, model: Model) -> Setup:
        longest = max(w.prompt_tokens for w in self.workloads) + self.options.tokens
        is_random = model.name in SHAPES
        return Setup(
            model=ensure_model(model.name, self.options.cache) if is_random else Path(model.name),
            slots=max(w.streams for w in self.workloads),
            context=-(-longest // 256) * 256,
            threads=model.threads,
            llama_server=self.options.llama_server,
            site=self.options.site,
        )

    async def _start(self, setup: Setup, stack: ExitStack) -> dict[str, Peer]:
        """Start the peers that are here, and warm them; note the others."""
        peers: dict[str, Peer] = {}
        for name in self.options.peers:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            try:
                if name == ENGINE:
                    peers[name] = await start_engine(setup, folder)
                else:
                    peers[name] = await start_server(name, setup, folder)
            except Absent as absent:
                self._note(f"{name} is absent: {absent}")
            else:
                stack.callback(peers[name].stop)
        peers |= {remote.name: RemotePeer(remote.endpoint) for remote in self.options.base_url}
        for name, peer in peers.items():
            _, prompts = next(self.workloads[0].waves([self.options.seed]))
            await peer.wave(prompts, self.options.tokens)
            _say(f"{name} is ready")
        return peers

    async def _measure_model(self, title: str, peers: dict[str, Peer]) -> None:
        for workload in self.workloads:
            for repeat in range(self.options.repeats):
                for name in list(peers):
                    try:
                        await self._round(title, workload, repeat, name, peers[name])
                    except LoadError as error:
                        self._note(f"{title}, {workload.name}: {name} failed: {error}")
                        del peers[name]
            self.save()

    async def _round(
        self, title: str, workload: Workload, repeat: int, name: str, peer: Peer
    ) -> None:
        """Run one round of a peer; add its figures to the rows."""
        measured: dict[str, list[Measured]] = {}
        end = time.monotonic() + self.options.seconds
        for number in itertools.count():
            for part, prompts in workload.waves([self.options.seed, repeat, number]):
                wave = await measured_wave(peer, prompts, self.options.tokens)
                measured.setdefault(part, []).append(wave)
                self._check_length(name, workload, wave)
            if time.monotonic() >= end:
                break
        for part, waves in measured.items():
            row = self._row(Row(title, workload.name, part, workload.streams, name))
            row.rounds.append(figures(waves))
            case = f"{title}, {workload.name} {part}".rstrip()
            speed = f"{row.rounds[-1].tokens_per_second:.1f} tokens/s"
            _say(f"{case}, {workload.streams} streams, round {repeat + 1}: {name} {speed}")

    def _check_length(self, name: str, workload: Workload, measured: Measured) -> None:
        """Note it when a peer counts other prompt tokens than were meant."""
        counts = {stream.prompt_tokens for stream in measured.wave.streams} - {None}
        if counts - {workload.prompt_tokens}:
            self._note(f"{name} counts {counts} tokens in prompts of {workload.prompt_tokens}")

    def _row(self, new: Row) -> Row:
        """Return the row of this case and peer: `new`, if there is none yet."""
        rows = self.results.rows
        for row in rows:
            if row.case == new.case and row.peer == new.peer:
                return row
        rows.append(new)
        cases = list(dict.fromkeys(row.case for row in rows))
        rows.sort(key=lambda row: cases.index(row.case))
        return new

    def _note(self, note: str) -> None:
        if note not in self.results.notes:
            self.results.notes.append(note)
            _say(note)

    def save(self) -> None:
        """Write what was measured so far."""
        self.options.out.mkdir(parents=True, exist_ok=True)
        (self.options.out / "results.json").write_bytes(to_json(self.results))
        (self.options.out / "results.md").write_text(to_markdown(self.results))


def _title(model: Model) -> str:
    name = f"{model.name.upper()} parameters" if model.name in SHAPES else Path(model.name).stem
    return f"{name}, {model.threads} thread{'s' if model.threads > 1 else ''}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print the tables, and leave them in a folder with the raw figures and a plot."""
    options = parse(None, (__doc__ or "").partition("\n")[0])
    run = Run(options)
    try:
        uvloop.run(run.measure())
    except (asyncio.CancelledError, KeyboardInterrupt):
        _say("ended early; the results so far:")
    print(to_markdown(run.results))
    try:
        draw(run.results.rows, options.out / "results.png")
    except ModuleNotFoundError as error:
        _say(f"no plot: {error.name} is not installed (pip install -e '.[bench]')")
    _say(f"results: {options.out}")


if __name__ == "__main__":
    main()
