from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import adapters

ROOT = Path(__file__).parents[2]


def test_all_is_exact() -> None:
    public = {name for name in vars(adapters) if not name.startswith("_")}
    modules = {name for name in public if type(vars(adapters)[name]).__name__ == "module"}
    assert set(adapters.__all__) == public - modules - {"Any"}
    assert adapters.__all__ == sorted(adapters.__all__)


def test_a_missing_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'adapters' has no attribute 'nothing'"):
        adapters.nothing  # noqa: B018


def test_importing_is_light_and_silent() -> None:
    code = (
        "import sys; from adapters import *; import adapters.builtin; "
        "heavy = {'torch', 'transformers', 'vllm', 'llama_cpp', 'pydantic'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)
