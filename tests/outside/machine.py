"""A machine with a systemd at work, made out of this one, whose first process may be something else."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

HOUSE = Path(__file__).parents[2]
BOOT = HOUSE / "tests" / "support" / "boot-systemd"
_CGROUPS = Path("/sys/fs/cgroup")
_BOUND = 60.0  # seconds until it has booted, or anything else comes true


class Machine:
    """A context: booted at its beginning, and gone at its end with all that was done to it. Its network is ours."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where its root will be, seen from inside alone."""
        assert os.geteuid() == 0, "run it as root: namespaces and control groups need that"
        self._folder = folder / f"auditor-{secrets.token_hex(4)}"
        self._folder.mkdir()
        self._log = folder / "machine.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # should we be killed, it goes, too
        command = ["setpriv", "--pdeathsig", "KILL", str(BOOT), str(self._folder)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=HOUSE, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.until("[ -S /run/systemd/private ] && systemctl is-system-running")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process is not None
        if (init := self._init()) is not None:
            with suppress(ProcessLookupError):
                os.kill(init, 9)
        else:
            self._process.kill()
        self._process.wait(_BOUND)
        end = time.monotonic() + _BOUND
        while not self._leave_groups():  # those who were killed are in them until they are gone
            assert time.monotonic() < end, "its control groups are still in use"
            time.sleep(0.1)

    def run(self, *command: str | Path, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root."""
        init = self._init()
        assert init is not None, f"it is not booted: {self._log.read_text()}"
        enter = ("nsenter", f"--target={init}", "-m", "-p", "-u", "-i", "-C", "-r", "-w", "env", "-C", HOUSE)
        done = subprocess.run(
            [*enter, *command], input=stdin, capture_output=True, text=True, check=False, timeout=300, cwd=HOUSE
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run a script in it and return what it said."""
        return self.run("bash", "-c", script, check=check).stdout.strip()

    def until(self, script: str, *, bound: float = _BOUND) -> None:
        """Wait until a script succeeds."""
        end = time.monotonic() + bound
        while self._init() is None or self.run("bash", "-c", script, check=False).returncode:
            assert self._process is not None and self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, f"it does not come true: {script}\n{self._log.read_text()}"
            time.sleep(0.2)

    def show(self, unit: str, *names: str) -> Sequence[str]:
        """Return properties of a unit."""
        shown = self.shell(f"systemctl show {unit} -p {','.join(names)}")
        found = dict(line.split("=", 1) for line in shown.splitlines())
        return [found[name] for name in names]

    def journal(self, unit: str) -> str:
        """Return all that a unit has said, and that was said of it."""
        return self.shell(f"journalctl --no-pager --unit {unit}")

    def _init(self) -> int | None:
        """Return the id of its first process as we see it; None before it is there."""
        assert self._process is not None
        pid = self._process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            first = [int(child) for child in children if Path(f"/proc/{child}/exe").readlink().name == "systemd"]
        except OSError:
            return None
        return first[0] if first else None

    def _leave_groups(self) -> bool:
        for top in [*_CGROUPS.glob(f"*/{self._folder.name}"), *_CGROUPS.glob(self._folder.name)]:
            folders = [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]
            try:
                for folder in folders:
                    folder.rmdir()
            except OSError:
                return False
        return True
