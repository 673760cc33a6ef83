"""Applications that keep count, and the same counts as the ledger has them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from contextlib import closing

import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from auditor.ledger.queries import Reader
from tests.acceptance.harness import Auditor
from tests.faults.tally import Count

EXCHANGE = "orders"
LANES = ("left", "right")  # each with a publisher, a queue and a consumer, all on connections of their own
BOTH = "both"  # the routing key that leads to both queues

# one message in so many is ...
SHARED = 50  # sent to both queues
TWICE = 97  # published twice
REQUEUED = 31  # given back by its consumer at first


class Applications:
    """Publishers and consumers that keep count."""

    def __init__(self, url: str, messages: int, *, rate: float | None = None) -> None:
        """Publish so many `messages` in all, at most `rate` of them a second."""
        self.published: Counter[tuple[str, str]] = Counter()  # message id, queue
        self.delivered: Counter[tuple[str, str]] = Counter()
        self.messages = 0  # publishes, whatever the number of queues
        self.slowest = 0.0  # seconds that a message took at most from its publish to its consumer
        self._url = url
        self._wanted = messages
        self._pause = len(LANES) / rate if rate else 0.0
        self._stopped = False
        self._sent_at: dict[str, float] = {}
        self._unanswered = 0  # expected minus acknowledged
        self._publishing = len(LANES)
        self._done = asyncio.Event()

    def stop(self) -> None:
        """Publish no more; `run` ends once all is consumed."""
        self._stopped = True

    async def run(self) -> None:
        """Publish all and consume all."""
        connections = [await aiormq.connect(self._url) for _ in range(2 * len(LANES))]
        try:
            channels = [await _channel(connection) for connection in connections]
            await channels[0].exchange_declare(EXCHANGE, exchange_type="direct")
            for lane, channel in zip(LANES, channels[2:], strict=True):
                await channel.queue_declare(lane, durable=True)
                for key in (lane, BOTH):
                    await channel.queue_bind(lane, EXCHANGE, key)
                await channel.basic_qos(prefetch_count=500)
                await channel.basic_consume(lane, self._consumer(lane, channel))
            await asyncio.gather(*map(self._publish, LANES, channels[:2]))
            await asyncio.wait_for(self._done.wait(), 300)
        finally:
            for connection in connections:
                await connection.close()

    async def _publish(self, lane: str, channel: aiormq.Channel) -> None:
        for number in range(self._wanted // len(LANES)):
            if self._stopped:
                break
            if self._pause:
                await asyncio.sleep(self._pause)
            id = f"{lane}-{number}"
            self._sent_at[id] = time.monotonic()
            key, queues = (BOTH, LANES) if number % SHARED == 0 else (lane, (lane,))
            for _ in range(2 if number % TWICE == 0 else 1):
                self.messages += 1
                for queue in queues:
                    self.published[id, queue] += 1
                    self._unanswered += 1
                await channel.basic_publish(
                    b'{"orderId": "%d"}' % (number % 1000),
                    exchange=EXCHANGE,
                    routing_key=key,
                    properties=Basic.Properties(message_id=id, delivery_mode=1),
                    wait=number % 100 == 0,  # not for each: only so that the consumers get their turn
                )
        self._publishing -= 1
        self._answered(0)

    def _consumer(self, lane: str, channel: aiormq.Channel) -> aiormq.abc.ConsumerCallback:
        async def consume(message: DeliveredMessage) -> None:
            id = message.header.properties.message_id
            tag = message.delivery_tag
            assert id is not None
            assert tag is not None
            self.delivered[id, lane] += 1
            self.slowest = max(self.slowest, time.monotonic() - self._sent_at[id])
            if int(id.rpartition("-")[2]) % REQUEUED == 0 and not message.redelivered:
                await channel.basic_nack(tag, requeue=True, wait=False)
            else:
                await channel.basic_ack(tag, wait=False)
                self._answered(1)

        return consume

    def _answered(self, count: int) -> None:
        self._unanswered -= count
        if not self._unanswered and not self._publishing:
            self._done.set()


async def _channel(connection: aiormq.abc.AbstractConnection) -> aiormq.Channel:
    channel = await connection.channel(publisher_confirms=False)
    assert isinstance(channel, aiormq.Channel)
    return channel


def counts(auditor: Auditor) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Return what the ledger's views have of each message and queue: publishes, and deliveries."""
    published: Counter[tuple[str, str]] = Counter()
    delivered: Counter[tuple[str, str]] = Counter()
    with closing(sqlite3.connect(f"file:{auditor.ledger}?mode=ro", uri=True)) as ledger:
        for id, queue, attempts in ledger.execute("SELECT message_id, queue, attempts FROM audit"):
            if queue not in LANES:
                continue
            published[id, queue] += 1
            delivered[id, queue] += attempts
        # the same once more, by the deliveries one by one
        rows = ledger.execute(
            "SELECT m.message_id, d.queue FROM deliveries d JOIN messages m ON m.id = d.message ORDER BY d.message"
        )
        assert Counter((id, queue) for id, queue in rows if queue in LANES) == delivered
    return published, delivered


async def check_counts(auditor: Auditor, applications: Applications, tally: Count | None = None) -> None:
    """Wait until all is in the ledger, and compare it with what the applications counted.

    In the tally go events: planted is what the applications did, false what the ledger has beyond.
    """
    deliveries = applications.delivered.total()

    def complete(reader: Reader) -> bool:
        (status,) = reader.status()
        return bool(status["delivered"] >= deliveries)

    await auditor.until(complete, f"{deliveries} deliveries in the ledger", bound=300)
    await auditor.seen()
    published, delivered = await asyncio.to_thread(counts, auditor)
    if tally is not None:
        tally.hold(applications.published.elements(), published.elements())
        tally.hold(applications.delivered.elements(), delivered.elements())
    # what there is too much of and too little of; both as they should be when empty
    assert (published - applications.published, applications.published - published) == (Counter(), Counter())
    assert (delivered - applications.delivered, applications.delivered - delivered) == (Counter(), Counter())
    (status,) = await auditor.answer("status")
    assert (status["published"], status["delivered"]) == (applications.messages, deliveries)
    assert {status[name] for name in ("open_hops", "orphans", "undecodable")} == {0}
    assert await auditor.answer("lost") == []
