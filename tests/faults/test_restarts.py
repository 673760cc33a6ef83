"""A broker that restarts: no event counts twice, and none is missing outside a gap."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path

import aio_pika
import aiormq.exceptions
import pytest
from aio_pika.abc import AbstractIncomingMessage

from auditor.demo.broker import PrivateBroker
from auditor.ledger.queries import Reader
from tests.acceptance.harness import BOUND, FIRST, Auditor
from tests.acceptance.scene import open_scene
from tests.faults.steady import check_all_is_well, judged
from tests.faults.tally import Count, fault

QUEUE = "enduring"
RESTARTS, RESTARTS_LONG = 1, 20

_RATE = 100.0  # messages a second
_ANSWER = 5.0  # seconds for a publish to be confirmed, before its connection is given up
_LATEST = 45.0  # seconds until a publish that was not confirmed has come to the broker, if ever
_UNDER_WAY = 2.0  # seconds that a delivery may have been on its way to its consumer
_AWAY = (OSError, asyncio.TimeoutError, aiormq.exceptions.AMQPError, aio_pika.exceptions.AMQPError, RuntimeError)

Span = tuple[float, float]  # seconds since the epoch: when something happened, at the earliest and the latest


class Enduring:
    """A publisher and a consumer that come back after each restart. Messages are persistent, and confirmed."""

    def __init__(self, url: str) -> None:
        self.published: dict[str, Span] = {}
        self.confirmed: set[str] = set()
        self.delivered: defaultdict[str, list[Span]] = defaultdict(list)
        self.redelivered: set[str] = set()
        self._url = url
        self._stopped = False

    def stop(self) -> None:
        """Publish no more; `run` ends once all that was confirmed is consumed."""
        self._stopped = True

    async def run(self) -> None:
        """Publish and consume, through as many connections as it takes."""
        while not (self._stopped and self.confirmed <= self.delivered.keys()):
            with suppress(*_AWAY):
                async with await aio_pika.connect(self._url, timeout=_ANSWER) as connection:
                    await self._work(await connection.channel())
            await asyncio.sleep(0.2)

    async def _work(self, channel: aio_pika.abc.AbstractChannel) -> None:
        queue = await channel.declare_queue(QUEUE, durable=True)
        await queue.consume(self._consume)
        while not self._stopped:
            id = f"m-{len(self.published)}"
            began = time.time()
            self.published[id] = (began, began + _LATEST)
            message = aio_pika.Message(b"", message_id=id, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, QUEUE, mandatory=False, timeout=_ANSWER)
            self.published[id] = (began, time.time())
            self.confirmed.add(id)
            await asyncio.sleep(1 / _RATE)
        async with asyncio.timeout(BOUND):
            while not self.confirmed <= self.delivered.keys():  # noqa: ASYNC110 - of a connection that may break
                await asyncio.sleep(0.1)

    async def _consume(self, message: AbstractIncomingMessage) -> None:
        assert message.message_id is not None
        now = time.time()
        self.delivered[message.message_id].append((now - _UNDER_WAY, now))
        if message.redelivered:
            self.redelivered.add(message.message_id)
        with suppress(*_AWAY):
            await message.ack()


def hold(tally: Count, applications: Enduring, reader: Reader) -> None:
    """Hold the ledger against what the applications did."""
    gaps = [
        ((gap["from_at"] or 0) / 1e6, gap["to_at"] / 1e6) for gap in reader.gaps(limit=None) if gap["to_at"] is not None
    ]
    published, delivered = Counter[str](), Counter[str]()
    for row in reader.hops(queue=QUEUE, limit=None):
        published[row["message_id"]] += 1
        delivered[row["message_id"]] += row["attempts"]
    delivered.update(row["message_id"] for row in reader.orphans(limit=None) if row["queue"] == QUEUE)

    def seen(spans: list[Span], count: int) -> tuple[int, int]:
        """How many of these must be in the ledger, and how many of them are."""
        must = sum(not any(begin <= span[1] and span[0] <= end for begin, end in gaps) for span in spans)
        return must, min(must, count)

    for kind, done, found in (
        ("published", {id: [span] for id, span in applications.published.items()}, published),
        ("delivered", applications.delivered, delivered),
    ):
        for id, spans in done.items():
            must, are = seen(spans, found[id])
            tally.hold([f"{kind} {id}"] * must, [f"{kind} {id}"] * are)
        for id, times in found.items():
            # given to a consumer that never got it, since the broker went away: it comes once more
            unheard = kind == "delivered" and (id in applications.redelivered or id not in applications.delivered)
            if times > len(done.get(id, [])) and not unheard:
                tally.hold([], [f"{kind} too often: {id}"])
    claims = [row for row in reader.lost(queue=QUEUE, limit=None) if row["message_id"] in applications.delivered]
    tally.hold([], [f"{row['state']} {row['reason']}: {row['message_id']}, which was consumed" for row in claims])


@fault("broker restarted again and again")
@pytest.mark.timeout(1800)
async def test_every_event_is_in_the_ledger_once_or_lies_in_a_gap(
    node: PrivateBroker, tmp_path: Path, count: Count, long: bool
) -> None:
    vhost = "restarts"
    await asyncio.to_thread(node.add_vhost, vhost)
    auditor = await asyncio.to_thread(Auditor, node, vhost, tmp_path)
    applications = Enduring(node.url(vhost))
    work = asyncio.create_task(applications.run())
    try:
        auditor.start()
        await auditor.reading()
        for _ in range(RESTARTS_LONG if long else RESTARTS):
            await asyncio.sleep(2)
            await asyncio.to_thread(node.restart)
            await auditor.reading()
        await asyncio.sleep(2)
        applications.stop()
        await work
        await judged(auditor)
        await asyncio.to_thread(auditor.ask, lambda reader: hold(count, applications, reader))
        assert not count.wrong, count.wrong[:20]
        assert count.planted > 100
    finally:
        work.cancel()
        await asyncio.to_thread(auditor.close)


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
            await scene.in_flight("m1")
        await asyncio.to_thread(node.restart)
        async with open_scene(auditor, "after", count) as after:
            # the firehose is off after a restart: the auditor turns it on
            assert [gap["reason"] for gap in await auditor.gaps(2)] == [FIRST, "firehose_off"]
            # not persistent, so gone with the restart; but was it delivered before? nobody can say
            await scene.becomes("m1", "unknown")
            await check_all_is_well(after)
        assert auditor.log.count("Lost the") == 1
    finally:
        await asyncio.to_thread(auditor.close)
