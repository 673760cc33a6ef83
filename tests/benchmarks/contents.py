"""Contents of a trace queue as RabbitMQ would send them, made without a broker, in any number."""

from __future__ import annotations

import time
from itertools import cycle, islice

from auditor.tap.wire import Content
from tests.benchmarks.messages import EXCHANGE, QUEUE, ROUTING_KEY, bodies, message_id, order_id
from tests.tap.amqp import Table, encode_table

_ID = message_id(0)
_ORDER = order_id(0)


class Firehose:
    """Gives the events of one message after the other; both of a message's have the same number."""

    def __init__(self, queue: str = QUEUE) -> None:
        """Messages that are routed to this queue, and delivered from it."""
        properties: Table = [
            ("app_id", ("S", "crm")),
            ("type", ("S", "OrderStatusChanged")),
            ("message_id", ("S", _ID)),
            ("delivery_mode", ("I", 2)),
            ("headers", ("F", [("source", ("S", "crm"))])),
            ("content_type", ("S", "application/json")),
        ]
        shared: Table = [
            ("exchange_name", ("S", EXCHANGE)),
            ("routing_keys", ("A", [("S", ROUTING_KEY)])),
            ("properties", ("F", properties)),
            ("node", ("S", "rabbit@broker")),
        ]
        source = [*_client("crm", 41_000), ("routed_queues", ("A", [("S", queue)]))]
        sink = [("redelivered", ("I", 0)), *_client("mes", 42_000)]
        self._queue = queue
        self._published = _split(encode_table([*shared, *source]))
        self._delivered = _split(encode_table([*shared, *sink]))
        self._bodies = [tuple(body.split(_ORDER)) for body in bodies()]

    def published(self, first: int, count: int) -> list[Content]:
        """Return the publishes of so many messages."""
        return self._contents(f"publish.{EXCHANGE}", self._published, first, count)

    def delivered(self, first: int, count: int) -> list[Content]:
        """Return their deliveries."""
        return self._contents(f"deliver.{self._queue}", self._delivered, first, count)

    def _contents(self, key: str, properties: tuple[bytes, bytes], first: int, count: int) -> list[Content]:
        head, tail = properties
        routing_key, now = key.encode(), time.time_ns() // 1000
        kinds = islice(cycle(self._bodies), first % len(self._bodies), None)
        return [
            Content(
                number, False, routing_key, head + message_id(number) + tail, before + order_id(number) + after, now
            )
            for number, (before, after) in zip(range(first, first + count), kinds, strict=False)
        ]


def _client(user: str, port: int) -> Table:
    connection = f"10.0.0.5:{port} -> 10.0.0.100:5672"
    return [
        ("vhost", ("S", "/")),
        ("connection", ("S", connection)),
        ("channel", ("I", 1)),
        ("user", ("S", user)),
    ]


def _split(headers: bytes) -> tuple[bytes, bytes]:
    head, tail = headers.split(_ID)
    return b"\x20\x00" + head, tail
