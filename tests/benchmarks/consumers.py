"""The bare consumers that the auditor is held against: they count what comes, and acknowledge it in batches.

    python -m tests.benchmarks.consumers aio_pika --url amqp://… --queue Q --count 9000 --prefetch 4000 --ack-every 1000

Say "first" on stdout when the first event is there, "done" when all were acknowledged, and end when stdin does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aio_pika
import aiormq

Acknowledge = Callable[[Any], Awaitable[None]]


class _Count:
    """Counts to a number and acknowledges on the way."""

    def __init__(self, acknowledge: Acknowledge, count: int, ack_every: int) -> None:
        self._acknowledge = acknowledge
        self._count = count
        self._ack_every = ack_every
        self._seen = 0
        self.done = asyncio.Event()

    async def __call__(self, message: Any) -> None:
        self._seen += 1
        if self._seen == 1:
            _say("first")
        if self._seen > self._count:
            return
        if self._seen % self._ack_every == 0 or self._seen == self._count:
            await self._acknowledge(message)
        if self._seen == self._count:
            self.done.set()


async def with_aio_pika(url: str, queue: str, count: int, prefetch: int, ack_every: int) -> None:
    """Consume as aio-pika's documentation shows it."""
    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=prefetch)
    source = await channel.get_queue(queue, ensure=False)

    async def acknowledge(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        await message.ack(multiple=True)

    counting = _Count(acknowledge, count, ack_every)
    await source.consume(counting)
    await counting.done.wait()
    await _stay()


async def with_aiormq(url: str, queue: str, count: int, prefetch: int, ack_every: int) -> None:
    """Consume as aiormq's documentation shows it."""
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=prefetch)

    async def acknowledge(message: aiormq.abc.DeliveredMessage) -> None:
        assert message.delivery_tag is not None
        await channel.basic_ack(message.delivery_tag, multiple=True)

    counting = _Count(acknowledge, count, ack_every)
    await channel.basic_consume(queue, counting)
    await counting.done.wait()
    await _stay()


async def _stay() -> None:
    """Say that all is done, and be there to be measured until stdin ends."""
    _say("done")
    await asyncio.to_thread(sys.stdin.read)


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


CONSUMERS = {"aio_pika": with_aio_pika, "aiormq": with_aiormq}


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description="Consume a queue and count.")
    parser.add_argument("library", choices=CONSUMERS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--prefetch", type=int, required=True)
    parser.add_argument("--ack-every", type=int, required=True)
    given = parser.parse_args()
    consume = CONSUMERS[given.library]
    asyncio.run(consume(given.url, given.queue, given.count, given.prefetch, given.ack_every))


if __name__ == "__main__":
    main()
