"""Putting the server together: what is refused before anything starts."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from adapters import BaseChatAdapter, chat_adapters
from server.bootstrap import build_models
from server.settings import Settings, SettingsError

needs_llama_cpp = pytest.mark.skipif(
    find_spec("llama_cpp") is None, reason="the llama_cpp engine is not installed"
)


def test_an_adapters_defaults_must_be_sampling_parameters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class OddChatAdapter(BaseChatAdapter):
        sampling_defaults = {"temprature": 0.0}

        def match(self, model_path: str) -> bool:
            return model_path == "echo"

    monkeypatch.chdir(tmp_path)
    chat_adapters.names()  # loads the built-in ones, which must not land in the list below
    monkeypatch.setattr(chat_adapters, "adapters", [OddChatAdapter()])
    with pytest.raises(SettingsError, match="temprature"):
        build_models(Settings(_env_file=None, llm_model="echo"))


def test_the_model_table_keeps_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = build_models(Settings(_env_file=None, llm_model="echo"))
    assert list(models.models) == ["echo"]
    assert models.find("echo").engine.name == "echo"


def refusal(tmp_path: Path, table: str = "", **settings: Any) -> str:
    file = tmp_path / "models.toml"
    file.write_text(table)
    with pytest.raises(SettingsError) as caught:
        build_models(Settings(_env_file=None, models_file=file, **settings))
    return str(caught.value)


def test_engine_args_reach_the_engine_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text("[models.echo.engine_args]\ncontext_length = 77\n")
    models = build_models(Settings(_env_file=None, llm_model="echo", models_file=file))
    assert models.find("echo").engine.context_length == 77  # type: ignore[attr-defined]


def test_engine_args_reach_the_engine_from_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(_env_file=None, llm_model="echo", engine_args='{"context_length": 78}')
    assert build_models(settings).find("echo").engine.context_length == 78  # type: ignore[attr-defined]


def test_a_wrong_engine_arg_is_named_with_its_file(tmp_path: Path) -> None:
    message = refusal(tmp_path, "[models.echo.engine_args]\nfail_lode = true\n", llm_model="echo")
    assert "models.toml: models.echo.engine_args: fail_lode" in message
    assert "did you mean fail_load?" in message


def test_a_wrong_engine_arg_is_named_with_its_setting(tmp_path: Path) -> None:
    message = refusal(tmp_path, llm_model="echo", engine_args='{"context_length": "many"}')
    assert message.startswith("ENGINE_ARGS: context_length: Expected `int`")


def test_the_path_is_no_engine_arg(tmp_path: Path) -> None:
    message = refusal(tmp_path, llm_model="echo", engine_args='{"model_path": "x"}')
    assert "LLM_MODEL_PATH" in message


def test_engine_args_of_several_models_stand_in_the_file(tmp_path: Path) -> None:
    message = refusal(tmp_path, llm_model="echo,parlm-tiny", engine_args='{"max_requests": 1}')
    assert message.startswith("ENGINE_ARGS fits one model")


@needs_llama_cpp
def test_another_lora_adapter_makes_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter = tmp_path / "style.gguf"
    args = {"lora": [{"path": str(adapter)}]}

    def fingerprint(content: bytes) -> str:
        adapter.write_bytes(content)
        models = build_models(Settings(_env_file=None, engine_args=args))
        return models.find("parlm-tiny").fingerprint

    assert fingerprint(b"formal") != fingerprint(b"casual")


@needs_llama_cpp
def test_where_measurements_are_kept_changes_no_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = (tmp_path / "a", tmp_path / "b")
    models = [build_models(Settings(_env_file=None, xdg_cache_home=folder)) for folder in folders]
    assert len({table.find("parlm-tiny").fingerprint for table in models}) == 1
