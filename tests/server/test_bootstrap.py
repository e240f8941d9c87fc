"""Putting the server together: what is refused before anything starts."""

import json
import struct
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from adapters import BaseChatAdapter, chat_adapters
from engines.errors import ModelLoadError
from server.bootstrap import build_models
from server.models import ModelTable
from server.settings import Settings, SettingsError
from tests.engines.gguf_files import GGUF

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


def build(tmp_path: Path, name: str, path: Path, **values: object) -> ModelTable:
    given: dict[str, object] = {"llm_model": name, "llm_model_path": path, **values}
    given["models_file"] = tmp_path / "models.toml"
    (tmp_path / "models.toml").touch()
    return build_models(Settings(_env_file=None, **given))  # type: ignore[arg-type]


def folder(tmp_path: Path, config: dict[str, object]) -> Path:
    place = tmp_path / "weights"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    header = json.dumps({"w": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(8)
    (place / "model.safetensors").write_bytes(content)
    return place


def refused(tmp_path: Path, name: str, path: Path, **values: object) -> str:
    with pytest.raises((SettingsError, ModelLoadError)) as caught:
        build(tmp_path, name, path, **values)
    return str(caught.value)


def test_wrong_weights_for_a_name_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, {"model_type": "falcon"})
    said = refused(tmp_path, "vicuna-13b", path)
    assert all(word in said for word in ("vicuna-13b", str(path), "parlm pull vicuna-13b"))


def test_a_gguf_file_of_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    path = replace(GGUF(), metadata={"general.architecture": "brand-new"}).write(
        tmp_path / "m.gguf"
    )
    said = refused(tmp_path, "m", path)
    assert "llama_cpp does not know the architecture 'brand-new'" in said
    assert str(path) in said


def test_code_in_the_models_folder_is_refused_before_anything_loads(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = folder(tmp_path, {"model_type": "own", "auto_map": {"AutoModel": "modeling_own.Own"}})
    (path / "modeling_own.py").write_text(f"open({str(canary)!r}, 'w')")
    said = refused(tmp_path, "own-model", path, llm_engine="transformers")
    assert "TRUST_REMOTE_CODE=own-model" in said
    assert not canary.exists()


def test_a_pickle_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"PK\3\4")
    assert "pickle" in refused(tmp_path, "m", path)


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_the_reason_for_the_engine_is_kept(tmp_path: Path) -> None:
    path = GGUF().write(tmp_path / "m.gguf")
    model = build(tmp_path, "vicuna-13b", path).find("vicuna-13b")
    assert (model.engine.name, model.reason) == ("llama_cpp", "the weights are a GGUF file")


def test_weights_of_the_catalogue_are_found_where_they_are_pulled_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "vicuna-7b").mkdir(parents=True)
    (tmp_path / "models" / "vicuna-7b" / "config.json").write_text("{}")
    chosen = Settings(
        _env_file=None, llm_model="lmsys/vicuna-7b-v1.5", models_dir=tmp_path / "models"
    )
    with pytest.raises(ModelLoadError, match="vicuna-7b holds no weights"):
        build_models(chosen)


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_the_catalogue_names_the_adapter_unless_a_setting_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of the adapter: neither the model's name nor its path says anything of it."""

    class GPTJChatAdapter(BaseChatAdapter):
        name = "gptj"
        priority = -10

        def match(self, model_path: str) -> bool:
            return False

    default = chat_adapters.by_name("default")
    monkeypatch.setattr(chat_adapters, "adapters", [GPTJChatAdapter(), default])
    path = GGUF().write(tmp_path / "m.gguf")
    assert build(tmp_path, "gptj-6b", path).find("gptj-6b").adapter.name == "gptj"
    named = build(tmp_path, "gptj-6b", path, llm_adapter="default").find("gptj-6b")
    assert named.adapter.name != "gptj"
    assert build(tmp_path, "other", path).find("other").adapter.name != "gptj"

    class OwnChatAdapter(BaseChatAdapter):
        def match(self, model_path: str) -> bool:
            return model_path == "gptj-6b"

    chat_adapters.adapters.append(OwnChatAdapter())
    assert build(tmp_path, "gptj-6b", path).find("gptj-6b").adapter.name == "own"
