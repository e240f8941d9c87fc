"""Details per model: what is wrong in the file is named, and nothing in it is ignored unsaid."""

from pathlib import Path

import pytest

from server.bootstrap import FINGERPRINT_BLOCKS, FINGERPRINT_BYTES, weights_digest
from server.listening import bind
from server.model_specs import (
    ModelSpec,
    locate,
    model_specs,
    models_folder,
    partial_folder,
)
from server.settings import Settings, SettingsError


def settings(tmp_path: Path, text: str | None) -> Settings:
    file = tmp_path / "models.toml"
    if text is not None:
        file.write_text(text)
    return Settings(_env_file=None, llm_model="echo", models_file=file)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "[models",
        "[model.echo]",
        "models = 1",
        "[models.echo]\ncontext_length = 0",
        "[models.echo]\ncolour = 1",
        '[models.echo]\naliases = ["echo"]',
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str | None) -> None:
    with pytest.raises(SettingsError, match=r"models\.toml"):
        model_specs(settings(tmp_path, text))


def test_the_usual_file_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    usual = Settings(_env_file=None, llm_model="echo", models_file=Path("models.toml"))
    assert [spec.name for spec in model_specs(usual)] == ["echo"]


def test_a_model_that_is_not_served_is_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(model_specs(settings(tmp_path, "[models.ecko]"))) == 1
    assert "'ecko' is not in LLM_MODEL" in caplog.text


@pytest.mark.parametrize("server", ["https://127.0.0.1:8443", "nowhere.invalid:8000"])
def test_an_address_that_cannot_be_served_is_named(server: str) -> None:
    with pytest.raises(SettingsError, match=server):
        bind(Settings(_env_file=None, model_server=server, api_keys="k"))


def test_other_weights_in_the_same_file_have_another_fingerprint(tmp_path: Path) -> None:
    file = tmp_path / "weights.gguf"
    data = bytearray(2 * FINGERPRINT_BLOCKS * FINGERPRINT_BYTES)
    file.write_bytes(data)
    before = weights_digest(file)
    data[len(data) // 2] = 1
    file.write_bytes(data)
    assert weights_digest(file) != before


def spec_of(tmp_path: Path, name: str, **values: object) -> ModelSpec:
    given: dict[str, object] = {"llm_model": name, "models_file": tmp_path / "none.toml", **values}
    (tmp_path / "none.toml").touch()
    return model_specs(Settings(_env_file=None, **given))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["vicuna-13b", "vicuna-13b.gguf", "lmsys/vicuna-13b-v1.5"])
def test_weights_lie_under_the_models_name(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    assert locate(spec_of(tmp_path, "lmsys/vicuna-13b-v1.5"), tmp_path) == tmp_path / place


def test_the_folder_of_models_may_be_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "vicuna-7b").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    chosen = Settings(_env_file=None, models_dir=Path("../models"))
    found = locate(spec_of(tmp_path, "vicuna-7b"), models_folder(chosen))
    assert found.resolve() == tmp_path / "models" / "vicuna-7b"


def test_a_name_does_not_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(SettingsError, match="no weights found"):
        locate(ModelSpec(name="a/../../secret"), tmp_path / "models")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("vicuna-13b", "`parlm pull vicuna-13b`"),
        ("vicuna-13b-v1.5", "`parlm pull vicuna-13b`"),
        ("somebody/something", "`parlm pull somebody/something`"),
        ("my-model", "`parlm models --catalog`"),
    ],
)
def test_missing_weights_name_the_remedy(tmp_path: Path, name: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as caught:
        locate(spec_of(tmp_path, name), tmp_path)
    assert remedy in str(caught.value)
    assert "LLM_MODEL_PATH" in str(caught.value)


def test_a_download_that_was_not_finished_is_no_model(tmp_path: Path) -> None:
    partial_folder(tmp_path, "vicuna-13b").mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"not finished\. Run `parlm pull vicuna-13b`"):
        locate(spec_of(tmp_path, "vicuna-13b"), tmp_path)


def test_the_built_in_model_has_weights_for_every_engine(tmp_path: Path) -> None:
    assert locate(spec_of(tmp_path, "parlm-tiny")).suffix == ".gguf"
    folder = locate(spec_of(tmp_path, "parlm-tiny", llm_engine="transformers"))
    assert (folder / "model.safetensors").is_file()


def test_code_of_its_own_is_allowed_per_model(tmp_path: Path) -> None:
    assert spec_of(tmp_path, "a,b", trust_remote_code="a").trust_remote_code
    assert not spec_of(tmp_path, "a,b", trust_remote_code="b").trust_remote_code
    (tmp_path / "models.toml").write_text("[models.echo]\ntrust_remote_code = true")
    assert model_specs(settings(tmp_path, None))[0].trust_remote_code


@pytest.mark.parametrize("value", ["true", "a,other"])
def test_code_is_allowed_by_name_only(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match="TRUST_REMOTE_CODE"):
        spec_of(tmp_path, "a", trust_remote_code=value)
