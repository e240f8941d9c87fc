"""`parlm models`, with and without a server."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from server.cli import app
from tests.server.cli.scripted import ScriptedServer, reply_json

ABOUT = {
    "engine": "llama_cpp",
    "adapter": "ChatMLAdapter",
    "reason": "a GGUF file",
    "context_length": 512,
    "ready": True,
    "aliases": ["gpt-3.5-turbo", "default"],
}


def models(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments])


def test_what_parlm_tells(server: ScriptedServer) -> None:
    server.models = {
        "tiny": {"parlm": ABOUT},
        "org/big": {"parlm": {"engine": "vllm", "ready": False, "detail": "loading"}},
    }
    result = models("--base-url", server.url)
    assert result.exit_code == 0
    for word in ("tiny", "org/big", "llama_cpp", "512", "yes", "no: loading", "gpt-3.5-turbo"):
        assert word in result.stdout


def test_json_has_every_field(server: ScriptedServer) -> None:
    server.models = {"tiny": {"parlm": ABOUT}}
    reply = json.loads(models("--json", "--base-url", server.url).stdout)
    assert (reply["base_url"], reply["running"]) == (server.url, True)
    (model,) = reply["models"]
    assert {key: model[key] for key in ABOUT} == ABOUT
    assert model["id"] == "tiny"


def test_another_server_is_asked_once_for_details(server: ScriptedServer) -> None:
    server.models = {f"model-{number}": {} for number in range(5)}
    result = models("--base-url", server.url)
    assert [f"model-{number}" in result.stdout for number in range(5)] == [True] * 5
    assert "owner" in result.stdout
    assert "engine" not in result.stdout
    assert len(server.requests) == 2


def test_a_server_without_details_of_a_model(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = reply_json({"data": [{"id": "a"}, {"id": "b"}]})
    missing = reply_json({}, status=404)
    monkeypatch.setattr(
        server, "_reply_to", lambda x: listed if x.path == "/v1/models" else missing
    )
    reply = json.loads(models("--json", "--base-url", server.url).stdout)
    assert [model["id"] for model in reply["models"]] == ["a", "b"]


def test_markup_in_a_name_is_text(server: ScriptedServer) -> None:
    server.models = {"[red]x[/nonsense]": {}}
    assert "[red]x[/nonsense]" in models("--base-url", server.url).stdout


def test_no_server_lists_what_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_SERVER", "127.0.0.1:9")
    monkeypatch.setenv("LLM_MODEL", "vicuna-13b,parlm-tiny")
    result = models()
    assert result.exit_code == 0
    assert "vicuna-13b" in result.stdout
    assert "no server is running at http://127.0.0.1:9/v1" in result.stderr
    reply = json.loads(models("--json").stdout)
    assert reply["running"] is False
    assert [model["id"] for model in reply["models"]] == ["vicuna-13b", "parlm-tiny"]


def test_no_server_at_a_url_that_was_given() -> None:
    result = models("--base-url", "127.0.0.1:9")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no server at http://127.0.0.1:9/v1" in result.stderr


def test_an_error_of_the_server(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"error": {"message": "Wrong key.", "code": "invalid_api_key"}}
    monkeypatch.setattr(server, "_reply_to", lambda _: reply_json(error, status=401))
    result = models("--base-url", server.url)
    assert (result.exit_code, result.stderr.strip()) == (1, "401 invalid_api_key: Wrong key.")


def test_the_catalogue_needs_no_server() -> None:
    result = models("--catalog")
    assert result.exit_code == 0
    assert "vicuna-13b" in result.stdout
    assert "Llama 2 Community, gated" in result.stdout
    assert "This machine:" in result.stderr


def test_the_catalogue_says_what_runs_here() -> None:
    reply = json.loads(models("--catalog", "--json").stdout)
    assert reply["machine"]["platform"] in ("cuda", "mps", "cpu")
    listed = {model["name"]: model for model in reply["models"]}
    vicuna = listed["vicuna-13b"]
    assert vicuna["repo"] == "lmsys/vicuna-13b-v1.5"
    assert vicuna["unverified"] == ["billions", "context_length"]
    assert vicuna["here"].keys() >= {"engine", "format", "quant", "needs_bytes", "reason"}
