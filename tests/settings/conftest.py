"""Settings are tested without the settings of the machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditor.errors import SettingsError
from auditor.settings import Settings, load, loading


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("AUDITOR_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    monkeypatch.setattr(loading, "DEFAULT_CONFIG", tmp_path / "default.toml")
    monkeypatch.setattr(loading, "CONTAINER_SECRETS", tmp_path / "container")


Load = Callable[..., Settings]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Load settings from the text of a TOML file."""

    def from_text(toml: str = "", **overrides: Any) -> Settings:
        path = tmp_path / "auditor.toml"
        path.write_text(toml, encoding="utf-8")
        return load(path, overrides=overrides)

    return from_text


@pytest.fixture
def mistakes(loaded: Load) -> Callable[..., list[str]]:
    """Load settings that are wrong; give what is said of each mistake."""

    def from_text(toml: str = "", **overrides: Any) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            loaded(toml, **overrides)
        assert caught.value.exit_code == 2
        return [line.strip() for line in caught.value.why.splitlines()]

    return from_text
