"""config/auditor.toml is the operator's page of settings: it is complete, its defaults are true, and it loads."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from auditor.presets import PRESETS
from auditor.settings import FlowSettings, Settings, StageSettings, load
from auditor.settings.keys import SINGLE

SHOWN = Path(__file__).parents[2] / "config" / "auditor.toml"
OPTION = re.compile(r"#(?=[a-z_]+ = |\[\[?[a-z_.]+\]\]?$)")

EXAMPLES = {  # options without a default, whose value in the file is an example
    ("alerts", "ca_file"),
    ("alerts", "cert_file"),
    ("alerts", "key_file"),
    ("broker", "ca_file"),
    ("broker", "cert_file"),
    ("broker", "key_file"),
    ("broker", "management", "ca_file"),
    ("broker", "management", "password"),
    ("tracing", "ca_file"),
    ("tracing", "headers"),
    ("web", "access_db"),
    ("web", "cert_file"),
    ("web", "key_file"),
}


@pytest.fixture(scope="module")
def uncommented() -> str:
    return "\n".join(OPTION.sub("", line, count=1) for line in SHOWN.read_text().splitlines())


def test_it_loads_as_it_is_and_means_the_defaults() -> None:
    assert load(SHOWN) == Settings()


def test_it_shows_every_option(uncommented: str) -> None:
    shown = tomllib.loads(uncommented)
    stages = shown.pop("stages")
    assert {key for stage in stages for key in stage} == set(StageSettings.model_fields)
    (flow,) = shown.pop("flows")
    assert set(flow) == set(FlowSettings.model_fields)
    assert _leaves(shown) == set(SINGLE)


def test_it_loads_with_every_option_switched_on(uncommented: str, tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(uncommented)
    shown, defaults = load(path), Settings()
    for keys in SINGLE:
        if keys not in EXAMPLES:
            assert _value(shown, keys) == _value(defaults, keys), ".".join(keys)
    assert shown.stages == defaults.stages
    (flow,) = shown.flows
    assert flow.name == "crm->mes"
    preset = PRESETS["generic"]
    for name, value in flow.model_dump(exclude={"name"}).items():
        default = getattr(FlowSettings(name="x"), name)
        assert value == (list(getattr(preset, name)) if default is None else default), name


def test_every_line_is_short_enough_to_be_read() -> None:
    assert all(len(line) <= 180 for line in SHOWN.read_text().splitlines())


def _leaves(table: dict[str, Any], above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    leaves: set[tuple[str, ...]] = set()
    for key, value in table.items():
        leaves |= _leaves(value, (*above, key)) if isinstance(value, dict) and value else {(*above, key)}
    return leaves


def _value(settings: BaseModel, keys: tuple[str, ...]) -> Any:
    value: Any = settings
    for key in keys:
        value = getattr(value, key)
    return value.get_secret_value() if isinstance(value, SecretStr) else value
