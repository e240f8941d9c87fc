"""Fixtures of the server tests: the application on the echo engine, over a real socket."""

from collections.abc import Iterator

import pytest

from engines.echo import EchoEngine
from tests.serving import app_server, served


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    models = [
        served(EchoEngine(), "echo", aliases=("gpt-3.5-turbo",)),
        served(EchoEngine(), "org/echo-2"),
        served(EchoEngine(crash_at=3, tokens_per_second=50), "breaks"),
        served(EchoEngine(crash_at=0), "breaks-at-once"),
        served(EchoEngine(tokens_per_second=20), "slow"),
        served(EchoEngine(prefill_seconds=1.5), "late"),
    ]
    with app_server(models, header_hold=0.3, max_body_bytes=100_000) as root:
        yield root
