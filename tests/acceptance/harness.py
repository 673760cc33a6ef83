"""The auditor as its operator has it: the command as a real process, with a user that may do no more than it must.

What a test asserts comes out of the command's stdout, its exit code, or the ledger. Waits are for conditions; their
bound is generous and only there so that a test that fails does end.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from auditor.demo.server import Broker
from auditor.errors import LedgerError
from auditor.ledger.queries import Reader
from auditor.tap.topology import permissions

BOUND = 90.0  # seconds for anything to come true; nearly all of it does within five, unless the machine is starved
DEADLINE = 2.0  # seconds; a delivery that a consumer is ready for takes milliseconds
CANARY = 0.1  # seconds

COMMAND = (sys.executable, "-m", "auditor.cli")
FIRST = "first_start"  # the reason of the gap that every ledger begins with
QUEUE, CANARIES = "auditor.trace", "auditor.canary"

_POLL = 0.1  # seconds

# Python's start is most of a command's time: more at once than there are processors only makes the broker slow.
_COMMANDS = threading.BoundedSemaphore(2)

T = TypeVar("T")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[Row]:
        """The rows of its JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


async def command(*arguments: str | Path) -> Answer:
    """Run a command of the auditor to its end."""
    return await asyncio.to_thread(_run, [*COMMAND, *map(str, arguments)])


def _run(command: list[str]) -> Answer:
    with _COMMANDS:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOUND, check=False
        )
    return Answer(code=done.returncode, out=done.stdout, err=done.stderr)


def settings(broker: Broker, vhost: str, folder: Path, user: str, password: str) -> dict[str, Any]:
    """The settings of an auditor that tests want: quick, and able to turn the firehose on."""
    return {
        "broker": {
            "url": broker.amqp_url,
            "user": user,
            "password": password,
            "vhosts": [vhost],
            "management": {"url": broker.management_url, "user": broker.user, "password": broker.password},
        },
        "tap": {"canary_interval": CANARY, "canary_timeout": 3.0, "reconnect_min": 0.1, "reconnect_max": 1.0},
        "ledger": {"path": str(folder / "ledger.db")},
        "audit": {"orphan_wait": 1.0, "reinspect": 1.0},
        "http": {"listen": "127.0.0.1:0"},
        "flows": [{"name": "all", "deadline": DEADLINE}],
    }


def toml(settings: Mapping[str, Any], prefix: str = "") -> str:
    """Settings as TOML; strings, numbers and lists are written alike in JSON."""
    plain, tables = [], []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            tables.append(f"[{name}]\n{toml(value, f'{name}.')}")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"[[{name}]]\n{toml(entry, f'{name}.')}" for entry in value]
        else:
            plain.append(f"{key} = {json.dumps(value)}")
    return "\n".join([*plain, *tables]) + "\n"


async def until(true: Callable[[], Any], *, bound: float = BOUND) -> None:
    """Wait until something is true; asked in a thread, since it may take its time."""
    end = time.monotonic() + bound
    while not await asyncio.to_thread(true):
        assert time.monotonic() < end, "it does not come true"
        await asyncio.sleep(_POLL)


class Auditor:
    """An auditor of one vhost; `start` and `stop` its process as often as wanted, `close` at the end."""

    def __init__(self, broker: Broker, vhost: str, folder: Path) -> None:
        """Make its user and its settings, which may be changed until it is started."""
        self.broker = broker
        self.vhost = vhost
        self.folder = folder
        self.ledger = folder / "ledger.db"
        self.config = folder / "auditor.toml"
        self.user, self.password = f"auditor-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
        self.settings = settings(broker, vhost, folder, self.user, self.password)
        configure, write, read = permissions(QUEUE, CANARIES)
        broker.add_user(self.user, self.password, vhost=vhost, configure=configure, write=write, read=read)
        self.program: tuple[str, ...] = COMMAND
        self.environ: dict[str, str] = {}  # besides our own
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "auditor.log"

    # its process

    def write_config(self) -> None:
        """Write the settings as they are now."""
        self.config.write_text(toml(self.settings))

    def start(self) -> None:
        """Start the process."""
        self.write_config()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.program, "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environ},
            )

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._process is not None, "the auditor was not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All that it has said since the first start."""
        return self._log.read_text() if self._log.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the process to end and return its exit code."""
        assert self._process is not None, "the auditor was not started"
        return self._process.wait(BOUND)

    def stop(self) -> int:
        """End the process as systemd does, and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        """End it if it runs; fails when it has died before, or has said anything that only a bug makes it say."""
        try:
            if self._process is not None and self._process.returncode is None:
                code = self.stop()
                assert code == 0, f"exit code {code}:\n{self.log}"
            assert "Traceback" not in self.log, self.log
            assert self.password not in self.log
            assert self.broker.password not in self.log
        finally:
            if self.alive:
                assert self._process is not None
                self._process.kill()
                self._process.wait()
            self.broker.delete_user(self.user)

    async def connections(self) -> list[str]:
        """Wait until the broker's management lists its two connections, which takes seconds, and return their names."""
        api = self.broker.management

        def ours(_: Reader) -> list[str] | None:
            names = [one["name"] for one in api.get("connections") if one.get("user") == self.user]
            return names if len(names) == 2 else None

        return await self.until(ours, "two connections")

    # its ledger

    def ask(self, question: Callable[[Reader], T]) -> T:
        """Put a question to the ledger, in this process."""
        with Reader.open(self.ledger) as reader:
            return question(reader)

    async def until(self, question: Callable[[Reader], T | None], what: str, *, bound: float = BOUND) -> T:
        """Wait until the ledger's answer is a true one, and return it."""
        end = time.monotonic() + bound
        while True:
            try:
                if answer := await asyncio.to_thread(self.ask, question):
                    return answer
            except LedgerError:
                if self.ledger.exists() and time.monotonic() > end:
                    raise
            assert time.monotonic() < end, f"not within {bound} s: {what}\n{await asyncio.to_thread(lambda: self.log)}"
            assert self.alive, f"the auditor has ended:\n{await asyncio.to_thread(lambda: self.log)}"
            await asyncio.sleep(_POLL)

    def status(self, reader: Reader) -> Row | None:
        """What the running process has written about itself; None before it has."""
        return next((row for row in reader.status() if row["pid"] == self.pid), None)

    async def reading(self, *, bound: float = BOUND) -> None:
        """Wait until it reads: a canary that was published from now on has come back, and no gap is open."""
        now = time.time_ns() // 1000

        def reads(reader: Reader) -> bool:
            row = self.status(reader)
            watermark = row["watermark"] if row is not None and row["connected"] else None
            return watermark is not None and watermark > now and not any(gap["open"] for gap in reader.gaps())

        await self.until(reads, "the auditor reads the firehose", bound=bound)

    async def seen(self) -> None:
        """Wait until everything that happened on the broker before this call has been seen."""
        until = time.time_ns() // 1000 + int(4 * CANARY * 1e6)
        await self.until(
            lambda reader: (row := self.status(reader)) and row["watermark"] and row["watermark"] > until,
            "the watermark goes on",
        )

    async def gaps(self, count: int) -> list[Row]:
        """Wait until there are so many gaps at least and none is open, and return them, the oldest first."""

        def over(reader: Reader) -> list[Row] | None:
            found = reader.gaps(limit=None)
            return found[::-1] if len(found) >= count and not any(gap["open"] for gap in found) else None

        return await self.until(over, f"{count} gaps")

    async def answer(self, *arguments: str) -> list[Row]:
        """The rows that a reading command prints."""
        answer = await command(*arguments, "--json", "--ledger", self.ledger)
        assert answer.code == 0, answer.err
        assert "Traceback" not in answer.err
        return answer.rows

    async def shown(self, *arguments: str) -> str:
        """The table that a reading command prints for people."""
        answer = await command(*arguments, "--ledger", self.ledger)
        assert answer.code == 0, answer.err
        return answer.out
