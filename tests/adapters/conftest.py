from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from adapters.registry import chat_adapters, llm_adapters


@pytest.fixture
def own_adapters() -> Iterator[None]:
    """Take back whatever a test registers."""
    chat_adapters.names(), llm_adapters.names()  # have the built-in ones loaded
    before = chat_adapters.adapters[:], llm_adapters.adapters[:]
    yield
    chat_adapters.adapters[:], llm_adapters.adapters[:] = before
    for name in [name for name in sys.modules if name.startswith("parlm_user_adapters.")]:
        del sys.modules[name]
