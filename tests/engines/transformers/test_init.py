from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")


from engines.errors import InvalidOption, MissingDependency
from engines.registry import create_engine

OPTIONS = {"model_path": "m", "loader": "l"}


def test_creating_one_imports_no_library() -> None:
    program = (
        "import sys; from engines.registry import create_engine;"
        "create_engine('transformers', model_path='m', loader='l');"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_a_missing_library_is_told(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "engines.transformers.find_spec", lambda name: None if name == library else find_spec(name)
    )
    with pytest.raises(MissingDependency, match=r"pip install '\.\[transformers\]'"):
        create_engine("transformers", **OPTIONS)


@pytest.mark.parametrize("bad", [{"n_slots": 0}, {"no_such": 1}])
def test_a_wrong_option_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(bad))):
        create_engine("transformers", **OPTIONS, **bad)


def test_the_gpus_to_see_reach_the_child() -> None:
    engine: Any = create_engine("transformers", **OPTIONS, cuda_visible_devices="1")
    assert engine._environment["CUDA_VISIBLE_DEVICES"] == "1"
