"""The processes of the demo: each is started, watched and ended by its own id.

Their output goes to a log file. Each is in a session of its own, so that Ctrl-C reaches only the demo, which then ends
them in order; and each ends when the demo is killed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from auditor.demo.child import Child
from auditor.errors import AuditorError

_GRACE = 15.0  # seconds a process has to end by itself after it was asked to
_SHOWN = 20  # last lines of a process's output that a failure shows


class Process(ABC):
    """A Python module running as a process of its own; leaving the context ends it, however it is left."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = log

    @property
    @abstractmethod
    def exit_code(self) -> int | None:
        """What it ended with; None while it runs."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to end, and kill it when it does not; fine when it has ended."""

    def check(self) -> None:
        """Raise AuditorError with its last output when the process has ended by itself."""
        if self.exit_code is not None:
            raise self._failure("a process of the demo ended unexpectedly")

    def finish(self) -> None:
        """Ask it to end, and raise AuditorError with its last output unless it does so in order."""
        self.check()
        self.stop()
        if self.exit_code != 0:
            raise self._failure("a process of the demo did not end in order")

    def _failure(self, what: str) -> AuditorError:
        lines = self._log.read_text(errors="replace").splitlines()[-_SHOWN:]
        return AuditorError(
            what,
            on=f"{self.name}, exit code {self.exit_code}",
            why="its last output was\n" + ("\n".join(lines) or "(nothing)"),
            hint=f"All of its output is in {self._log}.",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class Listener(Process):
    """A process that is told what to do by lines on its standard input, and ends where they end."""

    def __init__(self, name: str, module: Sequence[str], log: Path, *, first_line: str) -> None:
        """Start `python -m module...`."""
        super().__init__(name, log)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *module],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
            )
        self.tell(first_line)

    @property
    def exit_code(self) -> int | None:
        """What it ended with; None while it runs."""
        return self._process.poll()

    def tell(self, line: str) -> None:
        """Write a line to its standard input; whether it still listens, `check` tells."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """End its input, and kill it when it does not end too."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # of what a dead process has not read
            self._process.stdin.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Daemon(Process):
    """A process that ends on SIGTERM."""

    def __init__(self, name: str, module: Sequence[str], log: Path, *, env: Mapping[str, str]) -> None:
        """Start `python -m module...`, with `env` added to its environment."""
        super().__init__(name, log)
        command = [sys.executable, "-m", *module]
        self._child = Child(command, env=_environment() | dict(env), folder=Path.cwd(), log=log)
        self._stopped = False

    @property
    def exit_code(self) -> int | None:
        """What it ended with; None while it runs."""
        return self._child.exit_code

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._child.pid

    def stop(self) -> None:
        """Send SIGTERM, and kill it when it does not end."""
        if not self._stopped:
            self._child.stop(_GRACE)
            self._stopped = True


def _environment() -> dict[str, str]:
    """Our environment without the settings of whoever started the demo: they are not meant for its processes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AUDITOR_")}
