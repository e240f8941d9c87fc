"""Putting the server together: what is refused before anything starts."""

from pathlib import Path

import pytest

from adapters import BaseChatAdapter, chat_adapters
from server.bootstrap import build_models
from server.settings import Settings, SettingsError


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
