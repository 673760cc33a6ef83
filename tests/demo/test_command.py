"""What `auditor demo` refuses before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from auditor.demo.command import demo


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing among the machine's temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_password_on_the_command_line_is_refused_and_not_repeated() -> None:
    result = CliRunner().invoke(demo, ["--broker-url", "amqp://guest:hunter2@127.0.0.1:1"])
    assert result.exit_code == 2
    assert "AUDITOR_DEMO_PASSWORD" in result.stderr
    assert "hunter2" not in result.output


def test_an_older_ledger_is_not_written_to(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    ledger.write_text("precious")
    result = CliRunner().invoke(demo, ["--ledger", str(ledger)])
    assert result.exit_code == 2
    assert "the file exists" in result.stderr
    assert ledger.read_text() == "precious"


def test_a_broker_that_does_not_answer_is_told_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITOR_DEMO_PASSWORD", "hunter2")
    urls = ["--broker-url", "amqp://127.0.0.1:1", "--management-url", "http://127.0.0.1:1"]
    result = CliRunner().invoke(demo, urls)
    assert result.exit_code == 3
    assert "127.0.0.1:1" in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    "wrong",
    [
        ["--seconds", "0"],
        ["--rate", "0"],
        ["--seed", "x"],
        ["--broker-url", "amqp://host:port"],
        ["--broker-url", "http://127.0.0.1"],
        ["--management-url", "http://127.0.0.1:15672"],
        ["--ledger", "/no/such/folder/ledger.db"],
    ],
)
def test_nonsense_is_wrong_use(wrong: list[str]) -> None:
    assert CliRunner().invoke(demo, wrong).exit_code == 2
