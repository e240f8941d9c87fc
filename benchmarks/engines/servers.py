"""How each server is started: with the same slots, context and threads, else with its defaults."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

MODEL_NAME = "bench"


class Absent(Exception):
    """A peer is not installed; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What every peer is given. `context` is in tokens for each of the `slots`.

    `llama_server` is the binary of that name, `site` a further folder of Python packages.
    """

    model: Path
    slots: int
    context: int
    threads: int
    llama_server: Path | None = None
    site: Path | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """A command that serves `MODEL_NAME` at a port, and its environment."""

    command: list[str]
    variables: Mapping[str, str] = field(default_factory=dict)


def parlm(setup: Setup, port: int) -> Launch:
    """Our server."""
    return Launch(
        [sys.executable, "-m", "server", "serve"],
        {
            "LLM_MODEL": MODEL_NAME,
            "LLM_MODEL_PATH": str(setup.model),
            "MODEL_SERVER": f"127.0.0.1:{port}",
            "LIMIT_MODEL_CONCURRENCY": str(setup.slots),
            "MAX_POSITION_EMBEDDINGS": str(setup.context),
            "LLAMA_CPP_THREADS": str(setup.threads),
        },
    )


def llama_server(setup: Setup, port: int) -> Launch:
    """llama.cpp's own server; its slots have buffers of their own, as ours have."""
    return _llama_server(setup, port)


def llama_server_plain(setup: Setup, port: int) -> Launch:
    """The same with flash attention off. It is on by default, which costs some CPUs speed."""
    return _llama_server(setup, port, "--flash-attn", "off")


def _llama_server(setup: Setup, port: int, *further: str) -> Launch:
    if setup.llama_server is None:
        raise Absent("no binary: name one with --llama-server")
    command = [str(setup.llama_server), "--model", str(setup.model), "--alias", MODEL_NAME]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-webui", "--offline"]
    command += ["--parallel", str(setup.slots), "--ctx-size", str(setup.slots * setup.context)]
    command += ["--threads", str(setup.threads), "--threads-batch", str(setup.threads)]
    return Launch([*command, "--no-kv-unified", *further])


def llama_cpp_server(setup: Setup, port: int) -> Launch:
    """llama-cpp-python's server: one request at a time.

    Not left at their defaults: logits of the whole prompt, which no other peer computes, and the
    cutting off of a running answer when another request comes.
    """
    _require(setup, "llama_cpp", "uvicorn", "fastapi", "starlette_context", "pydantic_settings")
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(setup.model)]
    command += ["--model_alias", MODEL_NAME, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--n_ctx", str(setup.context), "--n_threads", str(setup.threads)]
    command += ["--n_threads_batch", str(setup.threads), "--use_mlock", "false"]
    command += ["--logits_all", "false", "--interrupt_requests", "false", "--verbose", "false"]
    return Launch(command)


def xllamacpp(setup: Setup, port: int) -> Launch:
    """The llama-server inside the xllamacpp package."""
    _require(setup, "xllamacpp")
    numbers = (port, setup.slots, setup.context, setup.threads)
    module = "benchmarks.engines.xllamacpp_server"
    return Launch([sys.executable, "-m", module, str(setup.model), *map(str, numbers)])


SERVERS: dict[str, Callable[[Setup, int], Launch]] = {
    "parlm": parlm,
    "llama-server": llama_server,
    "llama-server-fa-off": llama_server_plain,
    "llama_cpp.server": llama_cpp_server,
    "xllamacpp": xllamacpp,
}


def _require(setup: Setup, *modules: str) -> None:
    path = [*([str(setup.site)] if setup.site else []), *sys.path]
    if missing := [name for name in modules if PathFinder.find_spec(name, path) is None]:
        raise Absent(f"not installed: {', '.join(missing)}")
