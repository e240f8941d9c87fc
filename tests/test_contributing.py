"""CONTRIBUTING.md shows a new family in at most 15 lines, and those lines are what is tested."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_printed_adapter_is_the_tested_one() -> None:
    printed = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert printed is not None
    assert printed[1] == (ROOT / "examples" / "new_family.py").read_text()
    assert len(printed[1].splitlines()) <= 15
