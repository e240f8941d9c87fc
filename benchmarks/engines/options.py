"""The command line of the speed benchmark."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from benchmarks.engines.load import Endpoint
from benchmarks.engines.peers import ENGINE
from benchmarks.engines.processes import ROOT
from benchmarks.engines.random_gguf import SHAPES
from benchmarks.engines.servers import SERVERS

PEERS = ("parlm", ENGINE, *(name for name in SERVERS if name != "parlm"))
QUICK = {
    "models": "25m:1",
    "streams": "1,16",
    "prompts": "128",
    "shared": 0,
    "repeats": 1,
    "seconds": 1.0,
}


@dataclass(frozen=True, slots=True)
class Model:
    """A key of `SHAPES` or a GGUF file, and the threads to run it with."""

    name: str
    threads: int


@dataclass(frozen=True, slots=True)
class Remote:
    """A server that somebody else started, and what to call it."""

    name: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; `parse` documents each."""

    models: list[Model]
    streams: list[int]
    prompts: list[int]
    shared: int
    tokens: int
    repeats: int
    seconds: float
    peers: list[str]
    llama_server: Path | None
    base_url: list[Remote]
    site: Path | None
    cache: Path
    out: Path
    seed: int


def parse(arguments: Sequence[str] | None, about: str) -> Options:
    """Return the options; a wrong one ends the program with a message."""
    parser = argparse.ArgumentParser(description=about)
    add = parser.add_argument
    threads = min(2, psutil.cpu_count(logical=False) or 1)
    sizes = f"25m:1,200m:{threads}"
    add(
        "--models",
        type=_models,
        default=sizes,
        metavar="NAME:THREADS,...",
        help="default %(default)s; NAME may be a GGUF file",
    )
    add("--streams", type=_numbers, default="1,4,16,32", help="requests at once")
    add("--prompts", type=_numbers, default="128,512", help="tokens of a prompt")
    add("--shared", type=int, default=16, help="requests that share a prefix; 0 for none")
    add("--tokens", type=int, default=64, help="new tokens a request")
    add("--repeats", type=int, default=3, help="rounds of each peer")
    add("--seconds", type=float, default=2.0, help="least length of a round")
    add("--peers", type=_peers, default=",".join(PEERS), help="default %(default)s")
    add("--llama-server", type=_file, help="the binary of llama.cpp's server")
    add("--base-url", type=_remote, action="append", default=[], metavar="NAME=URL")
    add("--site", type=Path, help="a further folder of packages, for what llama_cpp.server needs")
    add("--cache", type=Path, default=_home() / "random-models", help="default %(default)s")
    add("--out", type=Path, default=_results(), help="where results go; default %(default)s")
    add("--seed", type=int, default=time.time_ns() % 10**9, help="of the prompts")
    add("--quick", action="store_true", help="about a minute: one small model, one round")
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**QUICK)
    values = vars(parser.parse_args(arguments))
    del values["quick"]
    return Options(**values)


def _home() -> Path:
    return Path.home() / ".cache" / "parlm"


def _results() -> Path:
    name = time.strftime("llama_cpp-%Y%m%d-%H%M%S")
    return ROOT / "benchmarks" / "results" / name


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _models(text: str) -> list[Model]:
    return [_model(part) for part in text.split(",")]


def _model(text: str) -> Model:
    name, _, threads = text.rpartition(":")
    if name not in SHAPES and not Path(name).is_file():
        raise argparse.ArgumentTypeError(f"{name!r} is no file and not one of {', '.join(SHAPES)}")
    return Model(name, int(threads))


def _peers(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(PEERS)}")
    return names


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return Path(text).resolve()


def _remote(text: str) -> Remote:
    """Read `NAME=URL`; the first model that the server lists is the one to ask."""
    name, _, url = text.partition("=")
    if not name or not url.startswith("http://"):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=http://HOST:PORT/v1")
    listed = httpx2.get(f"{url.rstrip('/')}/models", trust_env=False).raise_for_status().json()
    return Remote(name, Endpoint(url, listed["data"][0]["id"]))
