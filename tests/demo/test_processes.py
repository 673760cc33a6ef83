"""Processes are ended whatever happens, and a death is told with its last words."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from auditor.demo.processes import Daemon, Listener, Process
from auditor.errors import AuditorError


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `program` that processes can be started with; the test writes it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "program.py"


def wait(process: Process) -> None:
    """Wait until a process has ended by itself."""
    end = time.monotonic() + 20
    while process.exit_code is None:
        assert time.monotonic() < end, "it did not end"
        time.sleep(0.05)


def test_a_system_that_dies_is_reported_with_its_last_output(tmp_path: Path) -> None:
    with Listener("crm", ["auditor.demo.services", "crm"], tmp_path / "log", first_line="no job") as process:
        wait(process)
        with pytest.raises(AuditorError, match=r"(?s)crm, exit code 1.*JSONDecodeError"):
            process.check()
        process.tell("anybody there?")  # no error of its own: `check` has the better one


def test_a_listener_ends_with_its_input(tmp_path: Path, program: Path) -> None:
    program.write_text("import sys; print(len(sys.stdin.read()))")
    with Listener("p", ["program"], tmp_path / "log", first_line="four") as process:
        process.check()
        process.finish()
    assert process.exit_code == 0
    assert (tmp_path / "log").read_text().strip() == "5"


def test_a_daemon_is_terminated_when_the_demo_is_interrupted(tmp_path: Path, program: Path) -> None:
    program.write_text("import time; time.sleep(60)")
    with pytest.raises(KeyboardInterrupt), Daemon("p", ["program"], tmp_path / "log", env={}) as process:
        raise KeyboardInterrupt
    assert process.exit_code == -signal.SIGTERM


def test_an_end_out_of_order_is_a_failure(tmp_path: Path, program: Path) -> None:
    program.write_text("import sys; sys.stdin.read(); sys.exit('I lost my keys')")
    with (
        Listener("p", ["program"], tmp_path / "log", first_line="x") as process,
        pytest.raises(AuditorError, match=r"(?s)exit code 1.*I lost my keys"),
    ):
        process.finish()


def test_settings_of_the_environment_are_not_handed_on(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITOR_DEMO_PASSWORD", "secret")
    program.write_text("import os; print([(k, v) for k, v in os.environ.items() if k.startswith('AUDITOR_')])")
    with Daemon("p", ["program"], tmp_path / "log", env={"AUDITOR_LOG__LEVEL": "info"}) as process:
        wait(process)
    assert (tmp_path / "log").read_text().strip() == "[('AUDITOR_LOG__LEVEL', 'info')]"
