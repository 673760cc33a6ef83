"""Processes of our own end with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from auditor.demo.child import Child

# A parent that is killed while its child sleeps; the child has a child of its own.
PARENT = """
import os, signal, sys
from pathlib import Path
from auditor.demo.child import Child
child = Child(["/bin/sh", "-c", "sleep 600 & echo $!; wait"], env={}, folder=Path("/"), log=Path(sys.argv[1]))
while len(Path(sys.argv[1]).read_text().split()) < 1:
    pass
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_dies_with_its_parent_and_so_do_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    done = subprocess.run([sys.executable, "-c", PARENT, str(log)], capture_output=True, text=True, timeout=30)
    assert done.returncode == -signal.SIGKILL
    for pid in (int(done.stdout), int(log.read_text())):
        deadline = time.monotonic() + 10
        while _runs(pid):
            assert time.monotonic() < deadline, f"{pid} lives on"
            time.sleep(0.05)


def test_a_child_is_asked_before_it_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = _child("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done", log)
    _wait_for(log, "ready\n")
    child.stop(grace=10)
    assert child.exit_code == 3
    assert log.read_text() == "ready\nbye\n"


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = _child("trap '' TERM; echo ready; while :; do sleep 0.05; done", log)
    _wait_for(log, "ready\n")
    child.stop(grace=0.2)
    assert child.exit_code == -signal.SIGKILL


def test_a_child_that_has_ended_can_be_ended_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = _child("sleep 600 & echo $!; exit 5", log)
    deadline = time.monotonic() + 10
    while child.exit_code is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    left = int(log.read_text())
    assert _runs(left)
    child.stop(grace=10)
    child.kill()
    assert child.exit_code == 5
    while _runs(left):
        assert time.monotonic() < deadline, "what it had started lives on"
        time.sleep(0.02)


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Child([str(tmp_path / "nothing")], env={}, folder=tmp_path, log=tmp_path / "log")


def _child(script: str, log: Path) -> Child:
    return Child(["/bin/sh", "-c", script], env={"PATH": os.defpath}, folder=log.parent, log=log)


def _wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 10
    while log.read_text() != text:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
