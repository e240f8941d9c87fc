"""Read an SSE body strictly, as bytes: what a test expects of a stream's frames."""

import json
from typing import Any


def frames(body: bytes) -> list[str]:
    """The data of each event; anything that is not a data line or a comment is an error."""
    assert body.endswith(b"\n\n")
    data = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        assert block.startswith("data: "), block
        assert "\n" not in block
        data.append(block.removeprefix("data: "))
    return data


def chunks(body: bytes) -> list[dict[str, Any]]:
    """The JSON chunks of a stream that ended well."""
    data = frames(body)
    assert data[-1] == "[DONE]"
    return [json.loads(item) for item in data[:-1]]


def text_of(parsed: list[dict[str, Any]], index: int = 0) -> str:
    """The content of a choice, put together."""
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in parsed
        for choice in chunk["choices"]
        if choice["index"] == index
    )
