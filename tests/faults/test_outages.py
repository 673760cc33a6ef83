"""What happens to the firehose, the trace queue and the connection: the audit goes on, and says what it could not see.

Each story has a vhost and an auditor of its own. Orders are worked meanwhile, all of them: whatever is claimed against
one is false.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass

import pytest

from auditor.demo.server import Broker
from tests.acceptance.harness import BOUND, FIRST, QUEUE, Auditor
from tests.acceptance.scene import Scene, open_scene
from tests.faults.counting import Tally
from tests.faults.steady import RATE, check_all_is_well, steady
from tests.faults.stories import Endings, Stories, chosen, side_by_side
from tests.faults.tally import Count
from tests.support.disk import MIB
from tests.support.wire import Wire

ROUNDS = 3  # how often each story is told in a long run
AT_ONCE = 4  # more would take so long for want of CPU that the consumers would be late
BACKLOG, BACKLOG_LONG = 4.0, 600.0  # seconds that the auditor is away
BACKLOG_RATE = 200.0  # messages a second meanwhile
WORKED_OFF = 300.0  # seconds for the longest backlog to be worked off; it takes some ten

# Settings with which little of what the auditor is behind by is already with it.
LITTLE = {"batch_events": 10, "prefetch": 10, "max_bytes": MIB}

story = Stories[["Outage"]]()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What a story is told with."""

    auditor: Auditor  # of a vhost of its own, and not started yet: its settings may be changed
    count: Count
    long: bool

    @asynccontextmanager
    async def played(self, *, gap: bool, rate: float = RATE) -> AsyncIterator[Scene]:
        """Start the auditor, and have orders worked meanwhile; see `steady`."""
        self.auditor.start()
        await self.auditor.reading()
        async with (
            open_scene(self.auditor, "outage", self.count) as scene,
            steady(self.auditor, self.count, gap=gap, rate=rate),
        ):
            yield scene
        if not gap:
            assert [gap["reason"] for gap in await self.auditor.gaps(1)] == [FIRST]

    @asynccontextmanager
    async def by_wire(self) -> AsyncIterator[Wire]:
        """Have the auditor reach the broker by a line that can break."""
        async with Wire(self.auditor.broker.host, self.auditor.broker.port) as wire:
            self.auditor.settings["broker"] |= {"url": wire.url, "heartbeat": 1}
            yield wire


@contextmanager
def held(auditor: Auditor) -> Iterator[None]:
    """Let the auditor commit nothing: it falls behind, while its canaries go out."""
    with closing(sqlite3.connect(auditor.ledger, isolation_level=None, timeout=BOUND)) as ledger:
        ledger.execute("BEGIN IMMEDIATE")
        yield


def switch_firehose(auditor: Auditor, *, on: bool) -> None:
    """Turn the firehose of the auditor's vhost on or off."""
    auditor.broker.management.put("vhosts", auditor.vhost, json={"tracing": on})


def unbind(auditor: Auditor) -> None:
    """Delete all bindings of the trace queue."""
    api = auditor.broker.management
    for one in api.get("queues", auditor.vhost, QUEUE, "bindings"):
        if one["source"]:
            api.delete("bindings", auditor.vhost, "e", one["source"], "q", QUEUE, one["properties_key"])


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


async def large_ones(scene: Scene, pause: float = 0) -> None:
    """Publish more than the bound of LITTLE, all of it consumed."""
    await scene.consume(await scene.queue("large"))
    for number in range(30):
        await scene.publish(f"large{number}", "large", body=bytes(100_000))
        await asyncio.sleep(pause)


@asynccontextmanager
async def behind(outage: Outage) -> AsyncIterator[Scene]:
    """Have the auditor fall behind, and a delivery wait in the trace queue that must not be missed unnoticed there."""
    auditor = outage.auditor
    auditor.settings["tap"] |= LITTLE
    async with outage.played(gap=True) as scene:
        inbox = await scene.in_flight("m1")
        with held(auditor):
            await depth(scene, 50)
            await scene.consume(inbox)
            await scene.arrived(1)
            yield scene
        # its delivery was not seen, and who could tell that from a loss?
        await scene.becomes("m1", "unknown")
        found = await auditor.gaps(2)
        assert found[1]["reason"] in ("blind", "overflow")
        await check_all_is_well(scene)


@story("connection cut")
async def a_closed_connection_costs_nothing(outage: Outage) -> None:
    auditor = outage.auditor
    async with outage.played(gap=False) as scene:
        await scene.queue("inbox")
        for number, name in enumerate(await auditor.connections()):
            await scene.publish(f"m{number}")
            await asyncio.to_thread(auditor.broker.management.delete, "connections", name)
        await scene.publish("m2")
        # they are judged: nothing was missed, because the trace queue kept it
        stuck = [(id, "inbox", "stuck", "no_consumer") for id in ("m0", "m1", "m2")]
        await scene.claimed(*stuck)
        await check_all_is_well(scene, *stuck)
    assert "Lost" in auditor.log


@story("connection black-holed")
async def a_silent_network_costs_nothing(outage: Outage) -> None:
    auditor = outage.auditor
    async with outage.by_wire() as wire, outage.played(gap=False) as scene:
        inbox = await scene.queue("inbox")
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


@story("connection slowed")
async def a_slow_network_only_makes_verdicts_late(outage: Outage) -> None:
    async with outage.by_wire() as wire, outage.played(gap=False) as scene:
        inbox = await scene.queue("inbox")
        await scene.publish("m1")
        wire.slow(40_000)  # a quarter of what the orders' events need
        await asyncio.sleep(7)
        await scene.consume(inbox)
        await scene.arrived(1)
        await scene.lose("m2", "purged")
        wire.mend()
        await check_all_is_well(scene, ("m2", "purged", "lost", "queue_empty"))


@story("auditor stopped for a while")
async def an_auditor_that_is_away_catches_up(outage: Outage) -> None:
    auditor = outage.auditor
    async with outage.played(gap=False) as scene:
        inbox, shelf = await scene.in_flight("m1"), await scene.queue("purged")
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


@story("backlog worked off")
async def a_backlog_is_worked_off(outage: Outage) -> None:
    auditor = outage.auditor
    async with outage.played(gap=False, rate=BACKLOG_RATE) as scene:
        shelves = [await scene.queue(f"shelf{number}") for number in range(4)]
        assert await asyncio.to_thread(auditor.stop) == 0
        for number, shelf in enumerate(shelves):
            await scene.publish("m", f"shelf{number}")
            await asyncio.sleep((BACKLOG_LONG if outage.long else BACKLOG) / len(shelves))
            await shelf.purge()
        auditor.start()
        await auditor.reading(bound=WORKED_OFF)
        await check_all_is_well(scene, *[("m", f"shelf{n}", "lost", "queue_empty") for n in range(4)])


@story("trace queue purged")
async def a_purged_trace_queue_leaves_a_gap(outage: Outage) -> None:
    auditor = outage.auditor
    async with behind(outage) as scene:
        await depth(scene, 500)
        await asyncio.to_thread(auditor.broker.management.delete, "queues", auditor.vhost, QUEUE, "contents")


@story("trace queue purged")
async def what_is_purged_while_the_auditor_is_away_only_the_counters_show(outage: Outage) -> None:
    auditor = outage.auditor
    auditor.settings["audit"]["completeness_interval"] = 1.0
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "away", outage.count) as scene:
        inbox = await scene.queue("inbox")
        await scene.publish("m1")
        if outage.long:  # what was published until now was counted and seen
            await auditor.until(
                lambda reader: (row := auditor.status(reader)) and row["counted"] is not None,
                "it is compared",
                bound=90,
            )
        await auditor.seen()
        assert await asyncio.to_thread(auditor.stop) == 0
        await scene.consume(inbox)
        await scene.publish("m2")
        await scene.arrived(2)
        await (await scene.channel.get_queue(QUEUE, ensure=False)).purge()
        auditor.start()
        # an empty queue looks the same whether nothing happened or somebody emptied it
        await scene.claimed(("m1", "inbox", "lost", "queue_empty"))
        if outage.long:
            found = await auditor.until(
                lambda reader: reader.gaps() if len(reader.gaps()) > 1 else None, "a gap", bound=180
            )
            assert [(gap["reason"], gap["missing"]) for gap in found] == [("incomplete", 1), (FIRST, None)]


@story("trace queue overflowed")
async def a_trace_queue_that_overflows_leaves_a_gap(outage: Outage) -> None:
    async with behind(outage) as scene:
        await large_ones(scene, pause=0.1)


@story("trace queue deleted")
async def a_deleted_trace_queue_is_made_again_and_leaves_a_gap(outage: Outage) -> None:
    auditor = outage.auditor
    async with outage.played(gap=True) as scene:
        inbox = await scene.in_flight("m1")
        await asyncio.to_thread(auditor.broker.management.delete, "queues", auditor.vhost, QUEUE)
        await inbox.purge()
        assert [gap["reason"] for gap in await auditor.gaps(2)] == [FIRST, "queue_gone"]
        # a delivery would not have been seen
        await scene.becomes("m1", "unknown")
        assert [hop for hop in await scene.hops() if hop[0] == "m1"] == [("m1", "inbox", "unknown", "queue_gone")]
        await check_all_is_well(scene)


@story("trace queue overflowed")
async def a_trace_queue_that_overflows_while_the_auditor_is_away_leaves_a_gap(outage: Outage) -> None:
    auditor = outage.auditor
    auditor.settings["tap"]["max_bytes"] = MIB
    async with outage.played(gap=True) as scene:
        inbox = await scene.in_flight("m1")
        assert await asyncio.to_thread(auditor.stop) == 0
        await scene.consume(inbox)
        await scene.arrived(1)  # of which the trace queue will drop the event
        await large_ones(scene)
        auditor.start()
        await auditor.reading()
        await scene.becomes("m1", "unknown")
        assert [row["reason"] for row in await scene.message("m1")] == ["overflow"]
        assert [gap["reason"] for gap in await auditor.gaps(2)] == [FIRST, "overflow"]
        await check_all_is_well(scene)


@story("trace queue unbound")
async def a_binding_that_was_deleted_is_made_again_and_leaves_a_gap(outage: Outage) -> None:
    auditor = outage.auditor
    async with outage.played(gap=True) as scene:
        inbox = await scene.in_flight("m1")
        await asyncio.to_thread(unbind, auditor)
        await inbox.purge()
        assert [gap["reason"] for gap in await auditor.gaps(2)] == [FIRST, "blind"]
        await scene.becomes("m1", "unknown")
        assert "no longer bound with '#': bound it again" in auditor.log
        await check_all_is_well(scene)


@story("firehose switched off")
async def a_firehose_that_went_off_is_turned_on_and_leaves_a_gap(outage: Outage) -> None:
    auditor = outage.auditor
    async with outage.played(gap=True) as scene:
        inbox = await scene.in_flight("m1")
        await asyncio.to_thread(switch_firehose, auditor, on=False)
        await scene.publish("unseen")
        await inbox.purge()
        assert [gap["reason"] for gap in await auditor.gaps(2)] == [FIRST, "firehose_off"]
        await scene.becomes("m1", "unknown")
        assert [hop for hop in await scene.hops() if hop[1] == "inbox"] == [("m1", "inbox", "unknown", "blind")]
        assert "turned it on" in auditor.log
        await check_all_is_well(scene)


@story("firehose off for good")
async def without_management_it_stays_blind_says_the_command_and_claims_nothing(outage: Outage) -> None:
    auditor = outage.auditor
    auditor.settings["broker"]["management"] = {}
    auditor.settings["tap"]["canary_timeout"] = 1
    auditor.start()
    problem = await auditor.until(lambda reader: (row := auditor.status(reader)) and row["problem"], "a problem")
    assert f"rabbitmqctl trace_on -p {auditor.vhost}" in problem
    async with open_scene(auditor, "blind", outage.count) as scene:
        await scene.publish("m1", "nowhere")
        assert await auditor.answer("hops") == []
        await asyncio.to_thread(switch_firehose, auditor, on=True)
        await check_all_is_well(scene)


@pytest.fixture(scope="module")
def endings(
    broker: Broker,
    long: bool,
    tally: Tally,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Endings:
    """How each chosen story ended."""

    async def tell(name: str) -> None:
        # the long backlog takes as long as all the others together
        for _ in range(ROUNDS if long and story.fault(name) != "backlog worked off" else 1):
            vhost = f"outage-{secrets.token_hex(4)}"
            await asyncio.to_thread(broker.add_vhost, vhost)
            auditor = await asyncio.to_thread(Auditor, broker, vhost, tmp_path_factory.mktemp("auditor"))
            try:
                await story.tell(name, Outage(auditor=auditor, count=tally[story.fault(name)], long=long))
            finally:
                await asyncio.to_thread(auditor.close)
                await asyncio.to_thread(broker.delete_vhost, vhost)

    return asyncio.run(side_by_side(chosen(request), tell, at_once=AT_ONCE))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", story.parameters)
def test_the_auditor_goes_on_and_says_what_it_could_not_see(name: str, endings: Endings) -> None:
    error = endings[name]
    if error is not None:
        raise error
