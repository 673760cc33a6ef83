"""What is the auditor's own runs short, breaks or hangs: its disk, its ledger, its broker when it is asked to end.

Real traffic goes on meanwhile, and afterwards every event is in the ledger once.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from auditor.demo.broker import PrivateBroker, program
from auditor.ledger.queries import Reader
from tests.acceptance.harness import QUEUE, Auditor, Row
from tests.acceptance.scene import open_scene
from tests.acceptance.traffic import Applications, check_counts
from tests.support.vhost import Vhost
from tests.support.wire import Wire

MIB = 1024 * 1024
DISK = 32 * MIB
FLOOR = 16 * MIB
END = 10.0  # seconds in which the auditor has to end, whatever goes on

pytestmark = pytest.mark.timeout(240)


class Disk:
    """A small file system of its own, which a test can fill and empty."""

    def __init__(self, path: Path) -> None:
        """Mount it at a path."""
        self.path = path
        self._ballast = path / "ballast"
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", path], check=True)

    def leave(self, free: int) -> None:
        """Fill it until only so many bytes are free."""
        with self._ballast.open("ab", buffering=0) as file:
            while (over := self.free - free) > 0:
                try:
                    file.write(b"\0" * min(over, MIB))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    return

    @property
    def free(self) -> int:
        """The bytes that are free."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def make_room(self) -> None:
        """Take out what it was filled with."""
        self._ballast.unlink()

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "--lazy", self.path], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    try:
        disk = Disk(tmp_path / "disk")
    except subprocess.CalledProcessError:
        pytest.skip("this machine lets nobody mount a small file system")
    yield disk
    disk.close()


@pytest.fixture
def cramped(disk: Disk, auditor: Auditor) -> Auditor:
    """An auditor whose ledger is on the small disk, and for which counts matter, no deadlines."""
    auditor.ledger = disk.path / "ledger.db"
    auditor.settings["ledger"] = {"path": str(auditor.ledger), "min_free": FLOOR}
    auditor.settings["flows"][0]["deadline"] = 600
    return auditor


@pytest.fixture
async def wire(vhost: Vhost) -> AsyncIterator[Wire]:
    """A line to the broker that can be cut."""
    async with Wire(vhost.broker.host, vhost.broker.port) as wire:
        yield wire


async def problem(auditor: Auditor, word: str) -> str:
    """Wait until the status tells of a problem with this word in it."""

    def tells(reader: Reader) -> str | None:
        said = (auditor.status(reader) or {}).get("problem") or ""
        return said if word in said else None

    return await auditor.until(tells, f"a problem: {word}")


async def waiting(auditor: Auditor, count: int) -> None:
    """Wait until the trace queue keeps so many events."""
    api = auditor.broker.management
    for _ in range(300):
        queue = await asyncio.to_thread(api.get, "queues", auditor.vhost, QUEUE)
        if queue.get("messages", 0) >= count:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the trace queue does not keep {count} events")


async def ends(auditor: Auditor) -> float:
    """Ask the auditor to end, check that it does so in time and in order, and return how long it took."""
    began = time.monotonic()
    auditor.signal(signal.SIGTERM)
    code = await asyncio.wait_for(asyncio.to_thread(auditor.wait), END)
    assert code == 0, auditor.log
    took = time.monotonic() - began
    print(f"ended in {took:.1f} s")  # noqa: T201
    return took


# the disk


async def test_below_the_floor_events_stay_in_the_broker_until_there_is_room(
    vhost: Vhost, disk: Disk, cramped: Auditor
) -> None:
    cramped.start()
    await cramped.reading()
    disk.leave(FLOOR - MIB)
    applications = Applications(vhost.url, 4_000)
    await applications.run()
    assert "ledger.min_free" in await problem(cramped, "min_free")
    await waiting(cramped, 4_000)
    assert cramped.log.count("ledger.min_free") == 1
    # what there is can be read, and the audit does not look dead
    assert "min_free" in await cramped.shown("status")
    assert await cramped.answer("lost") == []
    # the status is renewed, which takes a page or two each time, in a log that is used again and again
    free = disk.free
    await asyncio.sleep(2)
    assert free - disk.free < MIB // 4
    disk.make_room()
    await check_counts(cramped, applications)
    await cramped.until(lambda reader: (cramped.status(reader) or {"problem": "?"})["problem"] is None, "no problem")
    assert "All is well again" in cramped.log


async def test_a_full_disk_is_waited_for(vhost: Vhost, disk: Disk, cramped: Auditor, wire: Wire) -> None:
    cramped.settings["ledger"]["min_free"] = 1  # the floor is no help when somebody else is quicker
    cramped.settings["broker"]["url"] = wire.url
    cramped.start()
    await cramped.reading()
    applications = Applications(vhost.url, 10_000)
    traffic = asyncio.create_task(applications.run())
    await cramped.until(lambda reader: reader.status()[0]["published"] > 2_000, "2,000 publishes")
    disk.leave(0)
    await until(lambda: "A batch could not be written" in cramped.log)
    await traffic
    assert "disk is full" in cramped.log
    wire.cut()  # what comes again with a new connection waits for the batch that is not committed yet
    await until(lambda: "Lost the" in cramped.log)
    disk.make_room()
    await check_counts(cramped, applications)
    assert cramped.log.count("disk is full") <= 2


async def until(true: Callable[[], Any]) -> None:
    """Wait until something is true."""
    for _ in range(600):
        if await asyncio.to_thread(true):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it does not come true")


@pytest.mark.parametrize("floor", [FLOOR, 1])
async def test_it_ends_in_time_while_the_disk_has_no_room(
    vhost: Vhost, disk: Disk, cramped: Auditor, floor: int
) -> None:
    cramped.settings["ledger"]["min_free"] = floor
    cramped.start()
    await cramped.reading()
    disk.leave(floor - 1)
    applications = Applications(vhost.url, 10_000)
    await applications.run()
    await until(lambda: "A batch could not be written" in cramped.log)
    await ends(cramped)
    disk.make_room()
    cramped.start()
    await check_counts(cramped, applications)


# the ledger


KEPT = 60 * 4096  # bytes at the beginning, where the schema is, and the tables that are small


def trash(path: Path) -> None:
    """Overwrite the middle of a ledger, the log worked off before, so that it stands in the file."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as conn:
        # a change by another makes the auditor forget the pages that it has in memory
        conn.execute("UPDATE status SET broker = broker")
        busy, *_ = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(KEPT)
        file.write(os.urandom(size - KEPT))


def check_moved(auditor: Auditor) -> Row:
    """Check that there is one ledger that was moved aside, and return the gap that tells of it."""
    (aside,) = auditor.folder.glob("ledger.db.damaged-*Z")
    assert str(aside) in auditor.log
    with Reader.open(auditor.ledger) as reader:
        (gap,) = reader.gaps()
    assert gap["reason"] == "ledger_damaged"
    return gap


async def check_works(auditor: Auditor, vhost: Vhost) -> None:
    """Check that what happens from now on is recorded and judged, and nobody is accused of what was before."""
    async with open_scene(auditor, "afterwards") as scene:
        inbox = await scene.queue("inbox")
        await scene.publish("fine")
        await scene.consume(inbox)
        await scene.arrived(1)
        await scene.publish("lost", "nowhere")
        assert await scene.hops() == [
            ("fine", "inbox", "delivered", None),
            ("lost", "nowhere", "lost", "queue_missing"),
        ]
        assert all(row["queue"].startswith(scene.prefix) for row in await auditor.answer("lost"))


@pytest.fixture
async def recorded(auditor: Auditor, vhost: Vhost) -> Auditor:
    """An auditor that has a few thousand messages in its ledger, and runs."""
    auditor.start()
    await auditor.reading()
    applications = Applications(vhost.url, 4_000)
    await applications.run()
    await check_counts(auditor, applications)
    return auditor


async def test_a_ledger_that_is_damaged_at_the_start_is_moved_aside(recorded: Auditor, vhost: Vhost) -> None:
    await ends(recorded)
    with Reader.open(recorded.ledger) as reader:
        (before,) = reader.status()
    trash(recorded.ledger)
    recorded.start()
    await recorded.reading()
    gap = check_moved(recorded)
    assert gap["from_at"] == before["watermark"]
    assert "ledger_damaged" in await recorded.shown("status")
    await check_works(recorded, vhost)


async def test_a_ledger_that_is_damaged_while_it_is_written_is_moved_aside(recorded: Auditor, vhost: Vhost) -> None:
    pid = recorded.pid
    trash(recorded.ledger)
    applications = Applications(vhost.url, 4_000)
    await applications.run()
    await until(lambda: list(recorded.folder.glob("ledger.db.damaged-*Z")))
    await recorded.reading()
    assert (recorded.pid, recorded.alive) == (pid, True)
    check_moved(recorded)
    await check_works(recorded, vhost)


# being asked to end


@pytest.fixture
def through_wire(wire: Wire, auditor: Auditor) -> Auditor:
    """An auditor that reaches the broker by that line."""
    auditor.settings["broker"]["url"] = wire.url
    auditor.settings["flows"][0]["deadline"] = 600
    return auditor


async def test_it_ends_in_time_when_the_broker_has_gone_silent(vhost: Vhost, wire: Wire, through_wire: Auditor) -> None:
    through_wire.start()
    await through_wire.reading()
    applications = Applications(vhost.url, 6_000)
    traffic = asyncio.create_task(applications.run())
    await through_wire.until(lambda reader: reader.status()[0]["published"] > 2_000, "2,000 publishes")
    wire.black_hole()
    await traffic
    await ends(through_wire)
    wire.mend()
    through_wire.start()
    await check_counts(through_wire, applications)


async def test_it_ends_in_time_while_it_connects_to_a_silent_broker(wire: Wire, through_wire: Auditor) -> None:
    wire.black_hole()
    through_wire.start()
    await until(lambda: wire.connections > 0)
    await ends(through_wire)


async def test_it_ends_in_time_when_the_line_is_very_slow(vhost: Vhost, wire: Wire, through_wire: Auditor) -> None:
    through_wire.start()
    await through_wire.reading()
    wire.slow(2_000)
    applications = Applications(vhost.url, 6_000)
    await applications.run()
    await ends(through_wire)
    wire.mend()
    through_wire.start()
    await check_counts(through_wire, applications)


async def test_it_ends_in_time_while_the_management_does_not_answer(vhost: Vhost, auditor: Auditor) -> None:
    address = urlsplit(vhost.broker.management_url)
    assert address.hostname is not None
    assert address.port is not None
    async with Wire(address.hostname, address.port) as wire:
        wire.black_hole()
        auditor.settings["broker"]["management"]["url"] = f"http://127.0.0.1:{wire.port}"
        auditor.start()
        await until(lambda: wire.connections > 0)
        await ends(auditor)


@pytest.fixture
def node(test_environ: dict[str, str], broker: object) -> Iterator[PrivateBroker]:
    """A node that the test may hold up."""
    wrapper = shlex.split(test_environ.get("AUDITOR_TEST_RABBITMQ_COMMAND", ""))
    if not wrapper and not program("rabbitmq-server"):
        pytest.skip("RabbitMQ is not installed here: the tests use a broker that was given, or a container")
    with PrivateBroker(wrapper) as node:
        yield node


async def test_it_ends_in_time_when_the_broker_hangs(node: PrivateBroker, tmp_path: Path) -> None:
    await asyncio.to_thread(node.add_vhost, "hung")
    auditor = await asyncio.to_thread(Auditor, node, "hung", tmp_path)
    auditor.settings["flows"][0]["deadline"] = 600
    try:
        auditor.start()
        await auditor.reading()
        applications = Applications(node.url("hung"), 4_000)
        await applications.run()
        os.kill(node.pid, signal.SIGSTOP)
        try:
            await ends(auditor)
        finally:
            os.kill(node.pid, signal.SIGCONT)
        auditor.start()
        await check_counts(auditor, applications)
    finally:
        await asyncio.to_thread(auditor.close)
