"""The end of the server: running answers finish, or end with an error that says so."""

import asyncio
import json
import socket
from typing import Any

import httpx2
import pytest

from engines.echo import EchoEngine
from server.listening import Server, http_config
from server.models import ModelTable
from server.settings import Settings
from tests.serving import served, wait_until
from tests.sse import chunks, frames

WORDS = "word " * 50


async def stop_under_load(
    words: str, patience: float, stops: int
) -> tuple[httpx2.Response, httpx2.Response]:
    """Stop a server that gives a whole and a streamed answer; return both answers."""
    engine = EchoEngine(tokens_per_second=20)
    await engine.start()
    settings = Settings(_env_file=None, header_hold=0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions"
        server = Server(
            http_config(ModelTable([served(engine)]), settings), patience, engine.aclose
        )
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        async with httpx2.AsyncClient(timeout=20, trust_env=False) as client:
            answers = [
                asyncio.ensure_future(client.post(url, json=body(words, stream=stream)))
                for stream in (False, True)
            ]
            await asyncio.to_thread(wait_until, lambda: len(engine.state.running) == 2)
            await asyncio.sleep(5 * settings.header_hold)  # the stream's status is out
            for _ in range(stops):
                server.stop()
            whole, streamed = await asyncio.gather(*answers)
        await serving
    await engine.aclose()
    return whole, streamed


def body(words: str, *, stream: bool) -> dict[str, Any]:
    return {"model": "echo", "stream": stream, "messages": [{"role": "user", "content": words}]}


@pytest.mark.parametrize(("patience", "stops"), [(0.5, 1), (60, 2)])
def test_what_does_not_finish_ends_with_an_error(patience: float, stops: int) -> None:
    whole, streamed = asyncio.run(stop_under_load(WORDS, patience, stops))
    assert whole.status_code == 503
    assert whole.headers["retry-after"]
    assert whole.json()["error"]["code"] == "engine_unavailable"
    data = frames(streamed.content)
    assert json.loads(data[-1])["error"]["code"] == "engine_unavailable"
    assert "[DONE]" not in data


def test_what_finishes_in_time_is_whole() -> None:
    whole, streamed = asyncio.run(stop_under_load("one two three", 20, 1))
    assert whole.json()["choices"][0]["finish_reason"] == "stop"
    assert chunks(streamed.content)[-1]["choices"][0]["finish_reason"] == "stop"
