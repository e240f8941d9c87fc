"""Start the server inside xllamacpp, which has no command line of its own.

python -m benchmarks.engines.xllamacpp_server MODEL.gguf PORT SLOTS CONTEXT THREADS
"""

from __future__ import annotations

import signal
import sys

import xllamacpp


def main(model: str, port: int, slots: int, context: int, threads: int) -> None:
    """Serve until a signal comes. `context` is in tokens for one slot."""
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = "bench"
    params.port = port
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.kv_unified = False
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.ui = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
