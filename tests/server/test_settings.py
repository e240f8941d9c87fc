"""Settings: what is read, and how a wrong one is named."""

from pathlib import Path

import pytest

from server.settings import Settings, SettingsError, client_base_url, load_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)


def env(tmp_path: Path, text: str) -> Path:
    file = tmp_path / ".env"
    file.write_text(text)
    return file


def test_one_line_chooses_the_model(tmp_path: Path) -> None:
    assert load_settings(env(tmp_path, "LLM_MODEL=vicuna-13b")).llm_model == ("vicuna-13b",)


def test_several_models_in_order(tmp_path: Path) -> None:
    assert load_settings(env(tmp_path, "LLM_MODEL=b, a")).llm_model == ("b", "a")


def test_spaces_around_the_sign_are_taken(tmp_path: Path) -> None:
    assert load_settings(env(tmp_path, "NUM_GPUS = 1")).num_gpus == 1


def test_engine_args_are_a_json_object(tmp_path: Path) -> None:
    file = env(tmp_path, 'ENGINE_ARGS={"kv_type": "q8_0", "lora": [{"path": "a b.gguf"}]}  # note')
    assert load_settings(file).engine_args == {"kv_type": "q8_0", "lora": [{"path": "a b.gguf"}]}


def test_the_env_file_is_data(tmp_path: Path) -> None:
    settings = load_settings(env(tmp_path, "LLM_ADAPTER=$(touch pwned)\nMODELS_FILE=$HOME"))
    assert settings.llm_adapter == "$(touch pwned)"
    assert settings.models_file == Path("$HOME")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("MODEL_SERVER=nowhere:port", "MODEL_SERVER"),
        ("MODEL_SERVER=ftp://h:1", "MODEL_SERVER"),
        ("MODEL_SERVER=9000", "MODEL_SERVER"),
        ("MODEL_SERVER=127.0.0.1:0", "MODEL_SERVER"),
        ("LLM_MODEL=../etc/passwd", "LLM_MODEL"),
        ("LLM_MODEL=a,a", "LLM_MODEL"),
        ("LLM_ENGINE=magic", "LLM_ENGINE"),
        ("ENGINE_ARGS={n_threads: 4}", "ENGINE_ARGS"),
        ("ENGINE_ARGS=[1]", "ENGINE_ARGS"),
        ("LIMIT_MODEL_CONCURRENCY=0", "LIMIT_MODEL_CONCURRENCY"),
        ("QUANTIZE_4bit=perhaps", "QUANTIZE_4BIT"),
        ("HEADER_HOLD=nan", "HEADER_HOLD"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, text: str, name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings(env(tmp_path, text))


def test_a_misspelt_name_is_refused_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"LLM_MODL.*LLM_MODEL"):
        load_settings(env(tmp_path, "LLM_MODL=vicuna-13b"))


def test_a_foreign_name_is_ignored(tmp_path: Path) -> None:
    assert load_settings(env(tmp_path, "WEB_SERVER_PORT=7860")).llm_model == ("parlm-tiny",)


def test_keys_are_not_shown(tmp_path: Path) -> None:
    assert "sesame" not in repr(load_settings(env(tmp_path, "API_KEYS=open,sesame")))


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("127.0.0.1", "http://127.0.0.1:8000/v1"),
        ("http://h:81/", "http://h:81/v1"),
        ("https://gpu.example", "https://gpu.example/v1"),
        ("https://gpu.example/llm/v1", "https://gpu.example/llm/v1"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000/v1"),
        ("[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_the_base_url_of_clients(server: str, url: str) -> None:
    assert client_base_url(server) == url


def test_listening_wider_needs_keys(tmp_path: Path) -> None:
    wide = "MODEL_SERVER=0.0.0.0:8000"
    with pytest.raises(SettingsError, match="API_KEYS"):
        load_settings(env(tmp_path, wide)).check_exposure()
    load_settings(env(tmp_path, f"{wide}\nAPI_KEYS=k")).check_exposure()


def test_a_client_may_point_anywhere(tmp_path: Path) -> None:
    settings = load_settings(env(tmp_path, "MODEL_SERVER=https://gpu.example"))
    assert settings.base_url == "https://gpu.example/v1"
