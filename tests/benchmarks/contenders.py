"""Who drains the backlog, and how each of them is started and measured.

All of them read the same number of events from a quorum queue with the same prefetch, and acknowledge as often. What
is measured lies between the first event and the last acknowledgement (of the auditor: the last commit); starting Python
and connecting are left out.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from auditor.demo.server import Broker
from auditor.ledger.queries import Reader
from auditor.settings import Settings
from tests.benchmarks.processes import PYTHON, REPOSITORY, Program

PREFETCH = Settings().tap.prefetch
ACK_EVERY = Settings().tap.batch_events

_READY = 30.0  # seconds to start and connect
_DRAINED = 180.0  # seconds to drain the backlog
_POLL = 0.02  # seconds between two looks into the ledger

_SOURCE = Path(__file__).with_name("drain.c")
_C_PACKAGE = "librabbitmq-dev"


class Drained(NamedTuple):
    """What draining one backlog took."""

    events: int
    seconds: float
    cpu: float  # seconds
    peak_mib: float
    ledger_bytes: int = 0  # of the auditor: its file after a checkpoint

    @property
    def events_per_s(self) -> float:
        """How fast it was."""
        return self.events / self.seconds

    @property
    def cpu_us_per_event(self) -> float:
        """What an event cost."""
        return self.cpu / self.events * 1e6


Contender = Callable[[Broker, str, int], Drained]
"""Drains this queue of so many events."""


def library(name: str) -> Contender:
    """Return the bare consumer made with a library."""

    def drain(broker: Broker, queue: str, count: int) -> Drained:
        command = [*PYTHON, "tests.benchmarks.consumers", name, "--url", broker.url(), "--queue", queue]
        command += ["--count", str(count), "--prefetch", str(PREFETCH), "--ack-every", str(ACK_EVERY)]
        return _counted(command, count)

    return drain


def in_c(program: Path) -> Contender:
    """Return the bare consumer made with librabbitmq."""
    return lambda broker, queue, count: _counted(c_command(program, broker, queue, count), count)


def c_command(program: Path, broker: Broker, queue: str, count: int) -> list[str]:
    """Return the command that drains a queue in C; `count` 0: for ever."""
    where = [broker.host, str(broker.port), broker.user, broker.password, "/", queue]
    return [str(program), *where, str(count), str(PREFETCH), str(ACK_EVERY)]


def _counted(command: list[str], count: int) -> Drained:
    with Program(command) as program:
        program.wait_for("first", _READY)
        began, cpu = time.monotonic(), program.cpu
        program.wait_for("done", _DRAINED)
        return Drained(count, time.monotonic() - began, program.cpu - cpu, program.peak_mib)


def auditor(broker: Broker, queue: str, count: int) -> Drained:
    """The auditor in full, into a ledger on disk."""
    with tempfile.TemporaryDirectory(prefix="auditor-bench-", dir=_build()) as folder:
        ledger = Path(folder) / "ledger.db"
        with start_auditor(broker, queue, ledger) as program:
            program.wait_for("Reading the firehose", _READY)
            cpu = program.cpu
            ended = _wait_for_events(ledger, count)
            cpu = program.cpu - cpu
            peak = program.peak_mib
        began = _first_event(ledger)
        return Drained(count, ended - began, cpu, peak, ledger.stat().st_size)


def start_auditor(broker: Broker, queue: str, ledger: Path) -> Program:
    """Start `auditor run` with the settings' defaults, reading this trace queue."""
    return Program(
        [*PYTHON, "auditor.cli", "run", "--ledger", str(ledger)],
        env={
            "AUDITOR_BROKER__URL": broker.amqp_url,
            "AUDITOR_BROKER__USER": broker.user,
            "AUDITOR_BROKER__PASSWORD": broker.password,
            "AUDITOR_TAP__QUEUE": queue,
        },
    )


def _wait_for_events(ledger: Path, count: int) -> float:
    """Wait until the ledger has so many events; return when that was seen, in seconds since the epoch."""
    deadline = time.monotonic() + _DRAINED
    with Reader.open(ledger) as reader:
        while time.monotonic() < deadline:
            if sum(row["published"] + row["delivered"] for row in reader.status()) >= count:
                return time.time()
            time.sleep(_POLL)
    raise RuntimeError(f"the auditor did not drain {count} events within {_DRAINED:.0f} s")


def _first_event(ledger: Path) -> float:
    """Return when the first event reached the auditor, in seconds since the epoch."""
    conn = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        first: int = conn.execute("SELECT min(published_at) FROM messages").fetchone()[0]
        return first / 1e6
    finally:
        conn.close()


def build_c(say: Callable[[str], None]) -> Path | None:
    """Compile the C consumer; None, with a notice, where that cannot be done. As root on a Debian, its library is
    installed when it is missing."""
    program = _build() / "drain"
    problem = _compile(program)
    if problem and "amqp.h" in problem and os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing the system package {_C_PACKAGE}, for the consumer in C")
        subprocess.run(["apt-get", "install", "-y", "-q", _C_PACKAGE], capture_output=True, check=False)
        problem = _compile(program)
    if problem:
        say(f"the consumer in C is left out: {problem.splitlines()[0]}")
        return None
    return program


def _compile(program: Path) -> str:
    """Compile; return what is against it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "there is no C compiler"
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(_SOURCE), "-lrabbitmq"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def _build() -> Path:
    folder = REPOSITORY / "build"
    folder.mkdir(exist_ok=True)
    return folder
