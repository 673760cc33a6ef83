"""A process of our own that cannot outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Waits for its standard input to end, which it does when whoever holds the other end is gone, however that came about
# (SIGKILL too). The kernel's own PR_SET_PDEATHSIG would fire already when the *thread* that started the child ends.
_LEASH = "read -r _; kill -s KILL -- -$1"
_PAUSE = 0.05  # seconds between two looks


class Child:
    """A program in a session of its own, so that Ctrl-C does not reach it. Killing it kills what it has started, too.

    It is killed when this process dies. What it writes is appended to a log file.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path) -> None:
        """Start the command in a folder, with this environment and no other; OSError when that cannot be done."""
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=folder,
                start_new_session=True,
            )
        self._leash = subprocess.Popen(
            ["/bin/sh", "-c", _LEASH, "leash", str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its group."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What it ended with, the negative of a signal that killed it; None while it runs."""
        if self._process.returncode is None:
            # Only looked at, not waited for: until `kill` has dealt with its group, nobody else may be given its id.
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return None
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        return self._process.returncode

    def stop(self, grace: float) -> None:
        """Ask it to end, wait for as many seconds as it may take, then kill it and what it has left."""
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while self.exit_code is None and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        self.kill()

    def kill(self) -> None:
        """Kill it and what it has started, without asking; fine when it has ended already."""
        if self._process.returncode is not None:
            return
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        # By its id, not by the end of its input: it would do its work.
        self._leash.kill()
        self._leash.wait()
        assert self._leash.stdin is not None
        self._leash.stdin.close()
