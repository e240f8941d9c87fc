from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import adapters
from adapters import inherited, pilot
from adapters.builtin.vicuna import VicunaLLMAdapter

ROOT = Path(__file__).parents[2]


def test_the_modules_that_pages_import_from() -> None:
    from pilot.model.llm_out.chatglm_llm import (  # type: ignore[import-not-found]
        chatglm_generate_stream,
    )
    from pilot.model.llm_out.vicuna_base_llm import (  # type: ignore[import-not-found]
        generate_stream,
    )

    assert chatglm_generate_stream is generate_stream is adapters.generate_stream


@pytest.mark.parametrize("name", [name for name in pilot._MODULES if "config" not in name])
def test_every_module_has_its_names(name: str) -> None:
    module = importlib.import_module(name)
    for attribute in pilot._MODULES[name]:
        assert getattr(module, attribute) is not None


def test_the_registries_are_ours() -> None:
    adapter = importlib.import_module("pilot.model.adapter")
    assert adapter.BaseLLMAdaper is inherited.BaseLLMAdaper
    assert adapter.llm_model_adapters is inherited.llm_model_adapters
    assert adapter.VicunaLLMAdapater is VicunaLLMAdapter


def test_the_device() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    assert importlib.import_module("pilot.configs.model_config").DEVICE in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["pilot.scene", "pilot.model.nothing", "pilots"])
def test_nothing_else_is_found(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}'"):
        importlib.import_module(name)


def test_the_real_one_wins(tmp_path: Path) -> None:
    (tmp_path / "pilot").mkdir()
    (tmp_path / "pilot" / "__init__.py").write_text("IS_REAL = True")
    code = "import adapters, pilot; assert pilot.IS_REAL"
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": str(tmp_path)}, check=True
    )


def test_installing_twice_changes_nothing() -> None:
    before = len(sys.meta_path)
    pilot.install()
    assert len(sys.meta_path) == before
