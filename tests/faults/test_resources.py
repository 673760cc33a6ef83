"""What the auditor needs for itself runs short or breaks: its disk, its ledger. Real traffic goes on meanwhile."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from auditor.ledger.queries import Reader
from tests.acceptance.harness import QUEUE, Auditor, Row, until
from tests.acceptance.scene import open_scene
from tests.acceptance.traffic import Applications, check_counts
from tests.faults.conftest import FLOOR
from tests.faults.tally import Count, fault
from tests.support.disk import MIB, Disk
from tests.support.vhost import Vhost
from tests.support.wire import Wire

pytestmark = pytest.mark.timeout(240)


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


# the disk


@fault("disk nearly full")
async def test_below_the_floor_events_stay_in_the_broker_until_there_is_room(
    vhost: Vhost, disk: Disk, cramped: Auditor, count: Count
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
    await check_counts(cramped, applications, count)
    await cramped.until(lambda reader: (cramped.status(reader) or {"problem": "?"})["problem"] is None, "no problem")
    assert "All is well again" in cramped.log


@fault("disk full")
async def test_a_full_disk_is_waited_for(vhost: Vhost, disk: Disk, cramped: Auditor, wire: Wire, count: Count) -> None:
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
    # the writing found it out, or before that the look at what is free
    assert "disk is full" in cramped.log or "ledger.min_free" in cramped.log
    wire.cut()  # what comes again with a new connection waits for the batch that is not committed yet
    await until(lambda: "Lost the" in cramped.log)
    disk.make_room()
    await check_counts(cramped, applications, count)
    assert cramped.log.count("disk is full") <= 2


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


async def check_works(auditor: Auditor, count: Count) -> None:
    """Check that what happens from now on is recorded and judged, and nobody is accused of what was before."""
    async with open_scene(auditor, "afterwards", count) as scene:
        inbox = await scene.queue("inbox")
        await scene.publish("fine")
        await scene.consume(inbox)
        await scene.arrived(1)
        await scene.publish("lost", "nowhere")
        await scene.claimed(("lost", "nowhere", "lost", "queue_missing"))
        assert ("fine", "inbox", "delivered", None) in await scene.hops()
        others = [row for row in await auditor.answer("lost") if not row["queue"].startswith(scene.prefix)]
        count.hold([], [f"{row['state']} {row['reason']}: {row['message_id']}" for row in others])
        assert not others


@pytest.fixture
async def recorded(auditor: Auditor, vhost: Vhost) -> Auditor:
    """An auditor that has a few thousand messages in its ledger, and runs."""
    auditor.start()
    await auditor.reading()
    applications = Applications(vhost.url, 4_000)
    await applications.run()
    await check_counts(auditor, applications)
    return auditor


@fault("ledger damaged")
async def test_a_ledger_that_is_damaged_at_the_start_is_moved_aside(recorded: Auditor, count: Count) -> None:
    assert await asyncio.to_thread(recorded.stop) == 0
    with Reader.open(recorded.ledger) as reader:
        (before,) = reader.status()
    trash(recorded.ledger)
    recorded.start()
    await recorded.reading()
    gap = check_moved(recorded)
    assert gap["from_at"] == before["watermark"]
    assert "ledger_damaged" in await recorded.shown("status")
    await check_works(recorded, count)


@fault("ledger damaged")
async def test_a_ledger_that_is_damaged_while_it_is_written_is_moved_aside(
    recorded: Auditor, vhost: Vhost, count: Count
) -> None:
    pid = recorded.pid
    trash(recorded.ledger)
    applications = Applications(vhost.url, 4_000)
    await applications.run()
    await until(lambda: list(recorded.folder.glob("ledger.db.damaged-*Z")))
    await recorded.reading()
    assert (recorded.pid, recorded.alive) == (pid, True)
    check_moved(recorded)
    await check_works(recorded, count)
