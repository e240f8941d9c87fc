"""The whole benchmark, on a model of a few megabytes: our server, our engine, a peer not there."""

from pathlib import Path

import msgspec
import pytest

from benchmarks.engines.llama_cpp import Run
from benchmarks.engines.options import parse
from benchmarks.engines.random_gguf import Shape, write_model
from benchmarks.engines.report import Results

ARGUMENTS = ["--streams", "2", "--prompts", "16", "--shared", "2", "--tokens", "3"]
ARGUMENTS += ["--repeats", "2", "--seconds", "0", "--peers", "parlm,parlm-engine,llama-server"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_run_measures_what_is_there_and_notes_what_is_not(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="the llama_cpp engine is not installed")
    write_model(model := tmp_path / "tiny.gguf", Shape(64, 1, 64, 2, 1))
    out = tmp_path / "out"
    run = Run(parse(["--models", f"{model}:1", "--out", str(out), *ARGUMENTS], "about"))
    await run.measure()
    results = msgspec.json.decode((out / "results.json").read_bytes(), type=Results)
    assert results.notes == ["llama-server is absent: no binary: name one with --llama-server"]
    assert [(row.workload, row.part, row.peer) for row in results.rows] == [
        (workload, part, peer)
        for workload, part in (
            ("16-token prompts", ""),
            ("416 shared + 96 own tokens", "cold"),
            ("416 shared + 96 own tokens", "warm"),
        )
        for peer in ("parlm", "parlm-engine")
    ]
    for row in results.rows:
        assert len(row.rounds) == 2
        assert all(f.ttft_mean > 0 and f.tokens_per_second > 0 for f in row.rounds)
    cached = {row.part: row.rounds[1].cached_tokens or 0 for row in results.rows}
    assert cached["cold"] < 416 <= cached["warm"]
    assert "| parlm-engine |" in (out / "results.md").read_text()
