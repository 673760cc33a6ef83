"""Where spans go, and what is said when that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor.errors import SettingsError
from auditor.settings import load


def written(folder: Path, *lines: str) -> Path:
    path = folder / "auditor.toml"
    path.write_text("\n".join(["[tracing]", *lines]))
    return path


def test_an_endpoint_is_a_base_to_which_a_path_is_added(tmp_path: Path) -> None:
    tracing = load(written(tmp_path, 'endpoint = "https://collector:4318/otlp/"')).tracing
    assert tracing.endpoint == "https://collector:4318/otlp"


def test_headers_are_a_secret_and_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "tracing__headers").write_text("authorization=Bearer%20x\n")
    tracing = load(written(tmp_path, "enabled = true")).tracing
    assert tracing.headers is not None
    assert tracing.headers.get_secret_value() == "authorization=Bearer%20x"
    assert "Bearer" not in repr(tracing)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('endpoint = "collector:4318"', "tracing.endpoint"),
        ('endpoint = "http://collector:none"', "tracing.endpoint"),
        ('endpoint = "http://me:secret@collector:4318"', "tracing.headers"),
        ('ui_url = "http://jaeger/trace"', "{trace_id}"),
        ('ui_url = "javascript:{trace_id}"', "tracing.ui_url"),
        ('protocol = "http/json"', "tracing.protocol"),
        ('parent = "root"', "tracing.parent"),
        ("outbox_rows = 10", "tracing.outbox_rows"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, line))
    assert says in str(caught.value)
    assert "secret@" not in str(caught.value)
