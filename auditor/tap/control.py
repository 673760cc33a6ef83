"""The second connection: everything that is not consuming. Topology, canaries, inspections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from aio_pika.abc import AbstractChannel
from aio_pika.connection import Connection
from aiormq.exceptions import ChannelAccessRefused

from auditor.errors import BrokerError
from auditor.tap.canary import Canary, Sighting
from auditor.tap.connection import Endpoint, Now, connect, wall_clock
from auditor.tap.inspection import Inspector
from auditor.tap.topology import (
    broker_version,
    declare_canary_exchange,
    declare_canary_queue,
    declare_trace_queue,
    refused,
)

LIMIT = 10.0  # seconds that one canary or one inspection may take
_POLL = 0.1  # seconds between two looks into a queue


class Declared(NamedTuple):
    """What had to be made."""

    exchange: bool  # the canaries': the broker was restarted, unless this is the first time
    queue: bool  # the trace queue


class Control:
    """An open control connection, made by `open`. Whatever it is asked raises CONNECTION_ERRORS once it is gone."""

    def __init__(self, connection: Connection, channel: AbstractChannel, now: Now) -> None:
        self._connection = connection
        self._now = now
        self._channel = channel
        self.version = broker_version(connection)

    @classmethod
    async def open(cls, endpoint: Endpoint, name: str, now: Now = wall_clock) -> Control:
        """Connect; BrokerError says why it failed. `now` tells when an inspection was made."""
        connection = await connect(endpoint, name)
        channel = connection.channel(publisher_confirms=False)
        await channel.initialize(timeout=LIMIT)
        return cls(connection, channel, now)

    async def declare(self, canary_exchange: str, queue: str, keys: Sequence[str], max_bytes: int) -> Declared:
        """Make sure of the canaries' exchange and queue, of the trace queue and its bindings; tell what was made."""
        exchange = await self.declare_exchange(canary_exchange)
        await declare_canary_queue(self._connection, canary_exchange)
        return Declared(exchange, await declare_trace_queue(self._connection, queue, keys, max_bytes))

    async def declare_exchange(self, canary_exchange: str) -> bool:
        """Make sure of the canaries' exchange; True when it had to be made."""
        return await declare_canary_exchange(self._connection, canary_exchange)

    async def send(self, canary: Canary, sighting: Sighting) -> None:
        """Publish a canary; TimeoutError when the broker takes no publishes."""
        await canary.publish(self._channel, sighting, LIMIT)

    async def newest(self, canary: Canary) -> Sighting | None:
        """Look at the newest canary, which stays where it is; None when there is none of ours."""
        async with self._connection.channel() as channel:
            queue = await channel.get_queue(canary.exchange, ensure=False)
            try:
                found = await queue.get(fail=False, timeout=LIMIT)
            except ChannelAccessRefused as error:
                raise refused("read the newest canary", canary.exchange, error) from error
            # not acknowledged: with the channel it goes back
            return None if found is None or found.headers.get("user") != canary.user else canary.read(found.body)

    def inspector(self) -> Inspector:
        """Return one that looks at queues; two jobs that do so at one time want one each."""
        return Inspector(self._connection, LIMIT, self._now)

    async def take_one(self, queue: str, seconds: float) -> bool:
        """Take a message out of a queue, waiting so long for one; for a queue of our own making only."""
        source = await self._channel.get_queue(queue, ensure=False)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if await source.get(no_ack=True, fail=False) is not None:
                    return True
            except ChannelAccessRefused as error:
                raise BrokerError("Could not read the trace queue", on=queue, why=str(error)) from error
            await asyncio.sleep(_POLL)
        return False

    async def purge(self, queue: str) -> None:
        """Drop everything that waits in a queue of our own."""
        source = await self._channel.get_queue(queue, ensure=False)
        await source.purge()

    async def delete_queue(self, queue: str) -> None:
        """Delete a queue of our own making."""
        channel = self._connection.channel()
        await channel.initialize(timeout=LIMIT)
        await channel.queue_delete(queue)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.close()
