"""The settings of alerts, stages and the HTTP server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from auditor.flows import stage_table
from auditor.settings import Settings, load

URL = "http://HOST:PORT or https://HOST:PORT"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[alerts]\nalertmanagers = ["alertmanager:9093"]', f"found 'alertmanager:9093', expected {URL}"),
        ('[alerts]\nwebhooks = ["http://ada:hunter2@host"]', f"expected {URL} without user and password"),
        ("[alerts]\nlabels = { severity = 'none' }", "expected a label's name"),
        ("[alerts]\nlabels = { 'a-b' = 'x' }", "expected a label's name"),
        ('[alerts]\ncert_file = "/x.pem"', "expected the file with the key to alerts.cert_file"),
        ('[http]\nlisten = "9464"', "found '9464', expected HOST:PORT"),
        ('[http]\nlisten = "127.0.0.1:99999"', "expected HOST:PORT"),
        ('[[stages]]\nname = "A"\n[[stages]]\nname = "A"', "expected each stage once"),
        ('[[stages]]\nname = "A"\ndeadline = 0', "expected a duration"),
    ],
)
def test_what_is_wrong_is_said(mistakes: Callable[..., list[str]], text: str, said: str) -> None:
    (line,) = mistakes(text)
    assert said in line
    assert "hunter2" not in line


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "auditor.toml"
    path.write_text(
        """
[alerts]
alertmanagers = ["https://one:9093/", "http://[::1]:9093/prefix"]
labels = { team = "orders" }
[http]
listen = "[::1]:0"
[[stages]]
name = "NEW"
deadline = "2h"
[[stages]]
name = "DONE"
"""
    )
    settings = load(path)
    assert settings.alerts.alertmanagers == ["https://one:9093", "http://[::1]:9093/prefix"]
    assert settings.alerts.labels == {"team": "orders"}
    assert settings.http.listen == "[::1]:0"
    stages = stage_table(settings).stages
    assert [(stage.name, stage.system, stage.deadline) for stage in stages] == [
        ("NEW", "", 7_200_000_000), ("DONE", "", None)
    ]  # fmt: skip


def test_there_are_ten_stages_of_which_the_last_one_ends() -> None:
    table = stage_table(Settings())
    assert len(table.stages) == 10
    assert table.ends(table.place("CLOSED"))
    assert [stage.name for stage in table.stages if stage.deadline is None] == ["CLOSED"]
