"""Messages as no client library would write them, and a consumer that reads none of what it gets."""

from __future__ import annotations

import asyncio

from aiormq.abc import AbstractChannel
from pamqp.commands import Basic, Queue

from auditor.core.events import Properties
from auditor.demo.server import Broker
from auditor.tap.connection import Endpoint
from auditor.tap.consumer import Tap
from tests.tap.amqp import Table, encode_properties


class RawProperties(Basic.Properties):
    """Properties whose bytes are given."""

    def __init__(self, raw: bytes) -> None:
        # aiormq makes an id up for a message that has none
        super().__init__(message_id="not sent")
        self._raw = raw

    def marshal(self) -> bytes:
        """Return the bytes."""
        return self._raw


class RawText(str):
    """A property whose bytes are given: the broker does not look whether they are UTF-8."""

    raw: bytes

    def __new__(cls, raw: bytes) -> RawText:
        name = super().__new__(cls, raw.decode(errors="replace"))
        name.raw = raw
        return name

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Return the bytes."""
        return self.raw


class AnyDeclare(Queue.Declare):
    """Declares a queue whatever its name."""

    def validate(self) -> None:
        """Take it as it is."""


async def publish(
    channel: AbstractChannel,
    body: bytes,
    *,
    exchange: str = "",
    key: str,
    headers: Table | None = None,
    properties: Properties | None = None,
) -> None:
    """Publish on an aiormq channel; headers may be of any type, and hold any bytes, that AMQP has."""
    await channel.basic_publish(
        body,
        exchange=exchange,
        routing_key=key,
        properties=RawProperties(encode_properties(properties or Properties(), headers)),
    )


class BlindConsumer:
    """Takes everything out of a queue without decoding it: client libraries fall over some messages."""

    def __init__(self, broker: Broker, vhost: str, queue: str) -> None:
        endpoint = Endpoint(host=broker.host, port=broker.port, vhost=vhost, user=broker.user, password=broker.password)
        self._tap = Tap(endpoint, queue, prefetch=1000, max_buffered=64 * 1024 * 1024)

    async def take(self, count: int, seconds: float) -> list[bytes]:
        """Return the bodies of so many messages."""
        bodies: list[bytes] = []
        await self._tap.open()
        try:
            async with asyncio.timeout(seconds):
                while len(bodies) < count:
                    contents = await self._tap.batch(1000, 0.01, 1.0)
                    bodies += [bytes(content.body) for content in contents]
                    if contents:
                        await self._tap.acknowledge(contents[-1])
        finally:
            await self._tap.close()
        return bodies
