"""docs/adapters.md: its example works, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import adapters
from adapters.registry import chat_adapters
from engines.types import Message, PartsPrompt

PAGE = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("own_adapters")
def test_the_example(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None and len(example[1].splitlines()) <= 11
    file = tmp_path / "parrot.py"
    file.write_text(example[1])
    adapters.load_file(file)
    prompt = chat_adapters.resolve("parrot-7b").render([Message("user", "Hi")])
    assert prompt == PartsPrompt(prompt.parts, stop_tokens=("</s>",))  # type: ignore[union-attr]


def test_the_table_names_every_adapter_with_its_sampling_and_stops() -> None:
    rows = [row for row in PAGE.splitlines() if row.startswith("| `")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    families = {row[0]: row for row in cells[1:] if len(row) == 6 and row[1] != "models"}
    named = {name: row for key, row in families.items() for name in re.findall("`(.+?)`", key)}
    assert sorted(named) == chat_adapters.names()
    for name, row in named.items():
        adapter = chat_adapters.by_name(name)
        defaults = [f"{key} {value:g}" for key, value in sorted(adapter.sampling_defaults.items())]
        assert row[5] == ", ".join(defaults)
        prompt = adapter.render([Message("user", "Hi")])
        for stop in (*prompt.stop, *prompt.stop_tokens) if isinstance(prompt, PartsPrompt) else ():
            assert f"`{stop.replace(' ', '·')}`".replace("\n", "⏎") in row[4].replace("\\", "")
