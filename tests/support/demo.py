"""`auditor demo` as a process, and one run of it for all tests that only look at what it leaves."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from auditor.demo.server import Broker
from auditor.demo.topology import PERMISSIONS

SEED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """A run that was made, and what it left behind."""

    code: int
    out: str
    err: str
    ledger: str
    left: list[str]  # what of it was still there afterwards, as `left_behind` tells


@contextmanager
def demo(broker: Broker, folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Run `auditor demo` on a given broker, with its temporary files in a folder of the test."""
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "auditor.cli", "demo"),
            *("--broker-url", f"{broker.scheme}://{broker.user}@{broker.host}:{broker.port}"),
            *("--management-url", broker.management_url),
            *more,
        ],
        env=os.environ | {"AUDITOR_DEMO_PASSWORD": broker.password, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def left_behind(broker: Broker, folder: Path) -> list[str]:
    """What of a demo is still there: vhosts, users, and processes, which write their logs into its folder."""
    left = [vhost["name"] for vhost in broker.management.get("vhosts") if "auditor-demo-" in vhost["name"]]
    left += [user["name"] for user in broker.management.get("users") if user["name"].partition("-")[0] in PERMISSIONS]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            log = (process / "fd" / "1").readlink()
            if log.is_relative_to(folder):
                left.append(f"process {process.name}, {log.name}")
    return left


def run_once(broker: Broker, folder: Path) -> DemoRun:
    """Return the run that was made in this folder: whoever asks first makes it on its broker, while others wait."""
    folder.mkdir(exist_ok=True)
    made = folder / "run.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            ledger = str(folder / "ledger.db")
            with demo(broker, folder, "--seconds", "4", "--seed", str(SEED), "--json", "--ledger", ledger) as process:
                out, err = process.communicate(timeout=120)
            left = left_behind(broker, folder)
            run = DemoRun(code=process.returncode, out=out, err=err, ledger=ledger, left=left)
            made.write_text(json.dumps(asdict(run)))
        return DemoRun(**json.loads(made.read_text()))
