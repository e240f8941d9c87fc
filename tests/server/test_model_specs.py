"""Details per model: what is wrong in the file is named, and nothing in it is ignored unsaid."""

from pathlib import Path

import pytest

from server.bootstrap import FINGERPRINT_BLOCKS, FINGERPRINT_BYTES, weights_digest
from server.listening import bind
from server.model_specs import model_specs
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
