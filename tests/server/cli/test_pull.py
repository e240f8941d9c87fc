"""`parlm pull`, from the command line to a model that is served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session
from typer.testing import CliRunner, Result

from engines.model_files import describe
from server.cli import app
from server.model_specs import locate, model_specs
from server.settings import Settings
from tests.engines.gguf_files import GGUF
from tests.server.pull.fake_hub import COMMIT, FakeHub, Repo, fake_hub

WEIGHTS = GGUF().pack()
FILES = ["vicuna-7b-v1.5.Q4_K_M.gguf", "vicuna-7b-v1.5.Q8_0.gguf", "README.md"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub() as hub:
        hub.repos["TheBloke/vicuna-7B-v1.5-GGUF"] = Repo(dict.fromkeys(FILES, WEIGHTS))
        hub.repos["meta-llama/Llama-2-7b-chat-hf"] = Repo({"model.safetensors": b"12"}, gate=403)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        yield hub
    close_session()


def pull(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["pull", *arguments])


def test_a_pulled_model_is_found_by_its_name(hub: FakeHub, tmp_path: Path) -> None:
    result = pull("lmsys/vicuna-7b-v1.5", "--quant", "q4_k_m")
    assert result.exit_code == 0
    assert "set LLM_MODEL=vicuna-7b in .env" in result.stdout
    assert "Llama 2 Community" in result.stderr
    chosen = Settings(_env_file=None, llm_model="vicuna-7b", models_file=Path("models.toml"))
    path = locate(model_specs(chosen)[0], tmp_path / "models")
    assert describe("vicuna-7b", path).path.endswith("vicuna-7b/vicuna-7b-v1.5.Q4_K_M.gguf")


def test_json_for_scripts(hub: FakeHub, tmp_path: Path) -> None:
    expected = {
        "model": "vicuna-7b",
        "path": str(tmp_path / "models" / "vicuna-7b"),
        "repository": "TheBloke/vicuna-7B-v1.5-GGUF",
        "revision": COMMIT,
        "format": "gguf",
        "quant": "Q8_0",
        "bytes": len(WEIGHTS),
        "was_there": False,
    }
    assert json.loads(pull("vicuna-7b", "--quant", "Q8_0", "--json").stdout) == expected
    hub.requests.clear()
    again = json.loads(pull("vicuna-7b", "--quant", "Q8_0", "--json").stdout)
    assert again == expected | {"was_there": True}
    assert hub.transfers(".gguf") == []


def test_another_build_does_not_replace_the_first(hub: FakeHub, tmp_path: Path) -> None:
    assert pull("vicuna-7b", "--quant", "Q8_0").exit_code == 0
    result = pull("vicuna-7b", "--quant", "Q4_K_M")
    assert result.exit_code == 1
    assert str(tmp_path / "models" / "vicuna-7b") in result.stderr
    assert "move it away or delete it" in result.stderr


def test_a_gated_model_tells_of_the_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    result = pull("llama-2-7b", "--format", "safetensors")
    assert result.exit_code == 1
    assert "set it as HF_TOKEN" in result.stderr
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert pull("llama-2-7b", "--format", "safetensors").exit_code == 0


def test_a_model_that_does_not_fit_is_mentioned(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = pull("deepseek-r1-distill-llama-70b", "--format", "safetensors")
    assert "does not run on this machine" not in result.stderr
    monkeypatch.setattr("server.machine._total_memory", lambda: 2**30)
    result = pull("deepseek-r1-distill-llama-70b")
    assert result.exit_code == 1
    assert "does not run on this machine: gguf Q4_K_M needs about 51.8 GB" in result.stderr
    assert "`parlm pull " in result.stderr


def test_code_comes_along_only_when_it_is_allowed(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = {"config.json": b"{}", "modeling_own.py": b"", "model.safetensors": b"12"}
    hub.repos["org/own"] = Repo(files)
    assert pull("org/own").exit_code == 0
    assert not (tmp_path / "models/org/own/modeling_own.py").exists()
    hub.repos["org/own2"] = Repo(files)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "org/own2")
    assert pull("org/own2").exit_code == 0
    assert (tmp_path / "models/org/own2/modeling_own.py").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "parlm models --catalog"),
        (["org/none"], "org/none is not at http"),
        (["vicuna-7b", "--quant", "Q1"], "--quant Q1"),
        (["vicuna-7b", "--revision", "v9", "--quant", "Q8_0"], "no such revision"),
    ],
)
def test_what_cannot_be_had(hub: FakeHub, arguments: list[str], words: str) -> None:
    result = pull(*arguments)
    assert result.exit_code == 1
    assert words in result.stderr


def test_a_format_that_is_none(hub: FakeHub) -> None:
    result = pull("vicuna-7b", "--format", "pickle")
    assert result.exit_code == 2
    assert "--format" in result.stderr
