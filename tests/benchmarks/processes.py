"""Programs that are measured from outside: what they say, the CPU they used and the memory they reached."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

REPOSITORY = Path(__file__).parents[2]
PYTHON = (sys.executable, "-m")

_TICKS = os.sysconf("SC_CLK_TCK")
_GRACE = 30.0  # seconds to end by itself


class Program:
    """A running program; leaving its context ends it."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        """Start it in the repository; what it says on stdout and stderr is read from here on."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            env={**os.environ, **(env or {})},
            text=True,
        )
        self._name = " ".join(command[:4])
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._said: list[str] = []
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def wait_for(self, words: str, limit: float) -> str:
        """Wait until it says a line with these words and return that; RuntimeError when it ends or takes too long."""
        deadline = time.monotonic() + limit
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise RuntimeError(f"{self._name}: no {words!r} within {limit:.0f} s; it said {self._said}") from None
            if line is None:
                raise RuntimeError(f"{self._name} ended without {words!r}; it said {self._said}")
            if words in line:
                return line

    @property
    def cpu(self) -> float:
        """Seconds of CPU it has used, in user and system mode."""
        return cpu_of(self._process.pid)

    @property
    def peak_mib(self) -> float:
        """The most memory it has had (resident)."""
        return peak_mib_of(self._process.pid)

    def stop(self) -> None:
        """Ask it to end and wait until it has."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._said.append(line.rstrip("\n"))
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU of a process, in user and system mode, all its threads taken together."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_mib_of(pid: int | str) -> float:
    """Return the most memory that a process has had (resident).

    Unlike its `ru_maxrss`, this leaves out what the process had before it became another program.
    """
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def run(command: Sequence[str], limit: float) -> str:
    """Run a program to its end and return what it said on stdout; RuntimeError when it fails."""
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=limit)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:4])} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
