"""What sse-starlette costs against a plain StreamingResponse, in CPU per streamed event.

Both send the same pre-encoded frames, each followed by one checkpoint, from one uvicorn process;
the order alternates, each figure is the median of the repeats, with the load average beside it.

    python -m benchmarks.sse_overhead [--streams 16] [--events 2000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator

FRAME = (
    b'data: {"id":"chatcmpl-0123456789abcdef","created":1700000000,"model":"m","choices":[{'
    b'"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],'
    b'"system_fingerprint":"fp_0123456789ab","object":"chat.completion.chunk"}\n\n'
)


def serve(port: int) -> None:
    """Run the two responses and a CPU clock until killed."""
    import uvicorn
    from sse_starlette import EventSourceResponse
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    async def frames(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield FRAME
            await asyncio.sleep(0)

    async def plain(request: Request) -> Response:
        count = int(request.query_params["n"])
        return StreamingResponse(frames(count), media_type="text/event-stream")

    async def sse(request: Request) -> Response:
        count = int(request.query_params["n"])
        return EventSourceResponse(frames(count), sep="\n", send_timeout=30.0)

    async def cpu(_: Request) -> Response:
        return PlainTextResponse(str(time.process_time()))

    routes = [Route("/plain", plain), Route("/sse", sse), Route("/cpu", cpu)]
    uvicorn.run(Starlette(routes=routes), port=port, log_level="error")


async def get(port: int, path: str) -> bytes:
    """Fetch a path with nothing but a socket, so that the client is cheap."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    body = await reader.read()
    writer.close()
    return body


async def measure(port: int, kind: str, streams: int, events: int) -> float:
    """Return the server's CPU microseconds per event."""
    before = float((await get(port, "/cpu")).split(b"\r\n\r\n")[1])
    bodies = await asyncio.gather(*(get(port, f"/{kind}?n={events}") for _ in range(streams)))
    after = float((await get(port, "/cpu")).split(b"\r\n\r\n")[1])
    if any(body.count(b"data: ") != events for body in bodies):
        raise SystemExit("events were lost")
    return (after - before) / (streams * events) * 1e6


async def compare(port: int, streams: int, events: int, repeats: int) -> None:
    """Print a Markdown table of both kinds."""
    kinds = ("plain", "sse")
    figures: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind in kinds:
        await measure(port, kind, 2, 100)
    for _ in range(repeats):
        for kind in kinds:
            figures[kind].append(await measure(port, kind, streams, events))
    print(f"{streams} streams of {events} events, load average {os.getloadavg()[0]:.1f}\n")
    print("| response | CPU per event, median [min-max] |\n|---|---|")
    for kind, name in zip(kinds, ("StreamingResponse", "sse-starlette"), strict=True):
        values = figures[kind]
        print(
            f"| {name} | {statistics.median(values):.1f} us [{min(values):.1f}-{max(values):.1f}] |"
        )


def main() -> None:
    """Start the server in a process, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.sse_overhead", "--serve", str(port)]
    process = subprocess.Popen(command)
    try:
        wait_for(port)
        asyncio.run(compare(port, options.streams, options.events, options.repeats))
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int, seconds: float = 20) -> None:
    """Return when something listens on the port."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the benchmark's server did not start")


if __name__ == "__main__":
    main()
