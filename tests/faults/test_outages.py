"""What happens to the broker, the firehose and the connection: the audit goes on, and says what it could not see.

Orders are worked meanwhile, all of them: whatever is claimed against one is false.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from auditor.demo.broker import PrivateBroker
from tests.acceptance.harness import BOUND, QUEUE, Auditor, Row
from tests.acceptance.scene import Claim, Scene, open_scene
from tests.faults.steady import steady
from tests.faults.tally import Count, fault
from tests.support.wire import Wire

FIRST = "first_start"  # the gap that every ledger begins with

LOST = ("lost", "shelf", "lost", "queue_empty")


async def check_all_is_well(scene: Scene, *standing: Claim) -> None:
    """Check that the auditor sees and judges what happens from now on, and still claims what it did."""
    await scene.auditor.reading()
    inbox = await scene.queue("afterwards")
    await scene.publish("fine", "afterwards")
    await scene.consume(inbox)
    await scene.arrived(1)
    await scene.queue("shelf", x_message_ttl=0)
    await scene.publish("lost", "shelf")
    await scene.claimed(LOST, *standing)
    assert ("fine", "afterwards", "delivered", None) in await scene.hops()


async def gaps(auditor: Auditor, count: int) -> list[Row]:
    """Wait until so many gaps are over, and return them, the oldest first."""
    return await auditor.until(
        lambda reader: (
            found[::-1] if len(found := reader.gaps()) >= count and not any(gap["open"] for gap in found) else None
        ),
        f"{count} gaps",
    )


@contextmanager
def held(auditor: Auditor) -> Iterator[None]:
    """Let the auditor commit nothing: it falls behind, while its canaries go out."""
    with closing(sqlite3.connect(auditor.ledger, isolation_level=None, timeout=BOUND)) as ledger:
        ledger.execute("BEGIN IMMEDIATE")
        yield


async def depth(scene: Scene, at_least: int) -> None:
    """Wait until so many events wait in the trace queue, or it has come to its bound."""
    before = -1
    async with asyncio.timeout(BOUND):
        while True:
            queue = await scene.channel.declare_queue(QUEUE, passive=True)
            found = queue.declaration_result.message_count or 0
            if found >= at_least or 0 < found < before:
                return
            before = found
            await asyncio.sleep(0.2)


@pytest.fixture
async def wire(auditor: Auditor) -> AsyncIterator[Wire]:
    """The line by which the auditor reaches the broker."""
    async with Wire(auditor.broker.host, auditor.broker.port) as wire:
        auditor.settings["broker"] |= {"url": wire.url, "heartbeat": 1}
        yield wire


@fault("connection cut")
@pytest.mark.timeout(180)
async def test_a_closed_connection_costs_nothing(scene: Scene) -> None:
    auditor = scene.auditor
    api = auditor.broker.management
    await scene.queue("inbox")
    async with steady(auditor, scene.count, gap=False):
        for number, name in enumerate(await auditor.connections()):
            await scene.publish(f"m{number}")
            await asyncio.to_thread(api.delete, "connections", name)
        await scene.publish("m2")
        # they are judged: nothing was missed, because the trace queue kept it
        stuck = [(id, "inbox", "stuck", "no_consumer") for id in ("m0", "m1", "m2")]
        await scene.claimed(*stuck)
        await check_all_is_well(scene, *stuck)
    assert [gap["reason"] for gap in await gaps(auditor, 1)] == [FIRST]
    assert "Lost" in auditor.log


@fault("connection black-holed")
@pytest.mark.timeout(180)
async def test_a_silent_network_costs_nothing(wire: Wire, scene: Scene) -> None:
    auditor = scene.auditor
    inbox = await scene.queue("inbox")
    async with steady(auditor, scene.count, gap=False):
        wire.black_hole()
        await scene.publish("m1")
        await inbox.purge()
        # given up after the heartbeats that are missing, and tried again in vain
        await auditor.until(
            lambda reader: (row := auditor.status(reader)) and not row["connected"], "the connection is given up"
        )
        await scene.publish("m2")
        wire.mend()
        await scene.consume(inbox)
        await scene.arrived(1)
        await check_all_is_well(scene, ("m1", "inbox", "lost", "queue_empty"))
    assert [gap["reason"] for gap in await gaps(auditor, 1)] == [FIRST]


@fault("connection slowed")
@pytest.mark.timeout(240)
async def test_a_slow_network_only_makes_verdicts_late(wire: Wire, scene: Scene) -> None:
    auditor = scene.auditor
    inbox = await scene.queue("inbox")
    async with steady(auditor, scene.count, gap=False):
        await scene.publish("m1")
        wire.slow(40_000)  # a quarter of what the orders' events need
        await asyncio.sleep(7)
        await scene.consume(inbox)
        await scene.arrived(1)
        shelf = await scene.queue("purged")
        await scene.publish("m2", "purged")
        await shelf.purge()
        wire.mend()
        await check_all_is_well(scene, ("m2", "purged", "lost", "queue_empty"))
    assert [gap["reason"] for gap in await gaps(auditor, 1)] == [FIRST]


@fault("auditor stopped for a while")
@pytest.mark.timeout(180)
async def test_an_auditor_that_is_away_catches_up(scene: Scene) -> None:
    auditor = scene.auditor
    inbox, shelf = await scene.queue("inbox"), await scene.queue("purged")
    async with steady(auditor, scene.count, gap=False):
        await scene.publish("m1")
        await auditor.seen()
        assert await asyncio.to_thread(auditor.stop) == 0
        await scene.consume(inbox)
        await scene.publish("m2", "purged")
        await scene.publish("m3", "nowhere")
        await scene.arrived(1)
        await asyncio.sleep(3)
        await shelf.purge()
        auditor.start()
        await check_all_is_well(
            scene, ("m2", "purged", "lost", "queue_empty"), ("m3", "nowhere", "lost", "queue_missing")
        )
    assert [gap["reason"] for gap in await gaps(auditor, 1)] == [FIRST]


@fault("backlog worked off")
@pytest.mark.timeout(900)
async def test_a_backlog_is_worked_off(scene: Scene, long: bool) -> None:
    auditor = scene.auditor
    shelves = [await scene.queue(f"shelf{number}") for number in range(4)]
    async with steady(auditor, scene.count, gap=False, rate=400):
        assert await asyncio.to_thread(auditor.stop) == 0
        for number, shelf in enumerate(shelves):
            await scene.publish("m", f"shelf{number}")
            await asyncio.sleep(30 if long else 1)
            await shelf.purge()
        auditor.start()
        await check_all_is_well(scene, *[("m", f"shelf{n}", "lost", "queue_empty") for n in range(4)])
    assert [gap["reason"] for gap in await gaps(auditor, 1)] == [FIRST]


@pytest.fixture
def little(auditor: Auditor) -> None:
    """Settings with which little of the backlog is already with the auditor."""
    auditor.settings["tap"] |= {"batch_events": 10, "prefetch": 10, "max_bytes": 1024 * 1024}


@fault("trace queue purged")
@pytest.mark.timeout(180)
async def test_a_purged_trace_queue_leaves_a_gap(little: None, scene: Scene) -> None:
    auditor = scene.auditor
    inbox = await scene.queue("inbox")
    async with steady(auditor, scene.count, gap=True):
        await scene.publish("m1")
        await auditor.seen()
        with held(auditor):
            await depth(scene, 50)
            await scene.consume(inbox)
            await scene.arrived(1)
            await depth(scene, 500)
            await asyncio.to_thread(auditor.broker.management.delete, "queues", auditor.vhost, QUEUE, "contents")
        # its delivery was not seen, and who could tell that from a loss?
        await scene.becomes("m1", "unknown")
        found = await gaps(auditor, 2)
        assert found[1]["reason"] in ("blind", "overflow")
        await check_all_is_well(scene)


@fault("trace queue overflowed")
@pytest.mark.timeout(180)
async def test_a_trace_queue_that_overflows_leaves_a_gap(little: None, scene: Scene) -> None:
    auditor = scene.auditor
    inbox = await scene.queue("inbox")
    async with steady(auditor, scene.count, gap=True):
        await scene.publish("m1")
        await auditor.seen()
        with held(auditor):
            await depth(scene, 50)
            await scene.consume(inbox)
            await scene.arrived(1)
            await scene.consume(await scene.queue("large"))
            for number in range(30):
                await scene.publish(f"large{number}", "large", body=bytes(100_000))
                await asyncio.sleep(0.1)
        await scene.becomes("m1", "unknown")
        found = await gaps(auditor, 2)
        assert found[1]["reason"] in ("blind", "overflow")
        await check_all_is_well(scene)


@fault("trace queue deleted")
@pytest.mark.timeout(180)
async def test_a_deleted_trace_queue_is_made_again_and_leaves_a_gap(scene: Scene) -> None:
    auditor = scene.auditor
    inbox = await scene.queue("inbox")
    async with steady(auditor, scene.count, gap=True):
        await scene.publish("m1")
        await auditor.seen()
        await asyncio.to_thread(auditor.broker.management.delete, "queues", auditor.vhost, QUEUE)
        await inbox.purge()
        assert [gap["reason"] for gap in await gaps(auditor, 2)] == [FIRST, "queue_gone"]
        # a delivery would not have been seen
        await scene.becomes("m1", "unknown")
        assert [hop for hop in await scene.hops() if hop[0] == "m1"] == [("m1", "inbox", "unknown", "queue_gone")]
        await check_all_is_well(scene)


@fault("firehose switched off")
@pytest.mark.timeout(180)
async def test_a_firehose_that_went_off_is_turned_on_and_leaves_a_gap(scene: Scene) -> None:
    auditor = scene.auditor
    api = auditor.broker.management
    inbox = await scene.queue("inbox")
    async with steady(auditor, scene.count, gap=True):
        await scene.publish("m1")
        await auditor.seen()
        await asyncio.to_thread(partial(api.put, "vhosts", auditor.vhost, json={"tracing": False}))
        await scene.publish("unseen")
        await inbox.purge()
        assert [gap["reason"] for gap in await gaps(auditor, 2)] == [FIRST, "firehose_off"]
        await scene.becomes("m1", "unknown")
        assert [hop for hop in await scene.hops() if hop[1] == "inbox"] == [("m1", "inbox", "unknown", "blind")]
        assert "turned it on" in auditor.log
        await check_all_is_well(scene)


@fault("firehose off for good")
async def test_without_management_it_stays_blind_says_the_command_and_claims_nothing(
    auditor: Auditor, count: Count
) -> None:
    auditor.settings["broker"]["management"] = {}
    auditor.settings["tap"]["canary_timeout"] = 1
    auditor.start()
    problem = await auditor.until(lambda reader: (row := auditor.status(reader)) and row["problem"], "a problem")
    assert f"rabbitmqctl trace_on -p {auditor.vhost}" in problem
    async with open_scene(auditor, "blind", count) as scene:
        await scene.publish("m1", "nowhere")
        assert await auditor.answer("hops") == []
        switch = partial(auditor.broker.management.put, "vhosts", auditor.vhost, json={"tracing": True})
        await asyncio.to_thread(switch)
        await check_all_is_well(scene)


@fault("broker restarted")
@pytest.mark.timeout(240)
async def test_a_broker_that_restarts_leaves_a_gap(node: PrivateBroker, tmp_path: Path, count: Count) -> None:
    vhost = "outage"
    await asyncio.to_thread(node.add_vhost, vhost)
    auditor = await asyncio.to_thread(Auditor, node, vhost, tmp_path)
    try:
        auditor.start()
        await auditor.reading()
        async with open_scene(auditor, "before", count) as scene:
            await scene.queue("inbox")
            await scene.publish("m1")
            await auditor.seen()
        await asyncio.to_thread(node.restart)
        async with open_scene(auditor, "after", count) as after:
            # the firehose is off after a restart: the auditor turns it on
            assert [gap["reason"] for gap in await gaps(auditor, 2)] == [FIRST, "firehose_off"]
            # not persistent, so gone with the restart; but was it delivered before? nobody can say
            await scene.becomes("m1", "unknown")
            await check_all_is_well(after)
        assert auditor.log.count("Lost the") == 1
    finally:
        await asyncio.to_thread(auditor.close)
