"""`.env.template` and the settings are the same list, with the same defaults."""

from pathlib import Path

import pytest
from dotenv import dotenv_values

from server.settings import Settings, load_settings

TEMPLATE = Path(__file__).parent.parent / ".env.template"


def test_names_equal_the_fields() -> None:
    names = {name.lower() for name in dotenv_values(TEMPLATE, interpolate=False)}
    assert names == set(Settings.model_fields)


def test_values_equal_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    assert load_settings(TEMPLATE) == load_settings(None)
