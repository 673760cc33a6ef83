"""What is sent to a broker when captures are recorded, and so what their decoding has to give back."""

from __future__ import annotations

from dataclasses import dataclass

from auditor.core.events import Properties
from tests.tap.amqp import Table, Typed, meaning

VHOST = "captures"
TOPIC, FANOUT, DEAD = "captures.topic", "captures.fanout", "captures.dead"
USER = "guest"
NO_PROPERTIES = Properties()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One message, and what is done to it."""

    exchange: str = TOPIC
    routing_key: str = "order.created"
    properties: Properties = NO_PROPERTIES  # without headers
    headers: Table | None = None
    body: bytes = b'{"order": 1}'
    queues: tuple[str, ...] = ("plain",)  # where the exchange routes it
    # what the consumer answers to each delivery in turn; every one of them makes a deliver event
    answers: tuple[str, ...] = ("ack",)
    filler: bool = False  # another message is sent after it, to push it out
    death: str | None = None  # the reason in the x-death of its last delivery
    delivered_from: tuple[str, ...] | None = None  # the queue of each delivery in turn; None: as `queues`, in any order

    @property
    def sent(self) -> Properties:
        """The properties as the publisher meant them, headers included."""
        return self.properties._replace(headers=meaning(("F", self.headers or ())))


def nested(depth: int) -> Typed:
    """Return a value with this many tables and arrays around it."""
    value: Typed = ("S", "core")
    for level in range(depth):
        value = ("A", [value]) if level % 2 else ("F", [("in", value)])
    return value


EVERY_TYPE: Table = [
    ("t", ("t", True)),
    ("b", ("b", -128)),
    ("B", ("B", 255)),
    ("s", ("s", -32768)),
    ("u", ("u", 65535)),
    ("I", ("I", -(2**31))),
    ("i", ("i", 2**32 - 1)),
    ("l", ("l", -(2**63))),
    ("f", ("f", 2.5)),
    ("d", ("d", 1.5)),
    ("D", ("D", (2, 314))),
    ("S", ("S", "Zürich")),
    ("x", ("x", b"\x00\xff")),
    ("T", ("T", 1_800_000_000)),
    ("V", ("V", None)),
    ("A", ("A", [("S", "a"), ("I", 1), ("F", [("k", ("t", False))])])),
    ("F", ("F", [("k", ("A", []))])),
]

SCENARIOS = {
    "plain": Scenario(properties=Properties(message_id="m-1")),
    "all-properties": Scenario(
        properties=Properties(
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            priority=7,
            correlation_id="order-1",
            reply_to="answers",
            expiration="600000",
            message_id="m-2",
            timestamp=1_800_000_000,
            type="OrderSubmitted",
            user_id=USER,
            app_id="shop",
        ),
        headers=[("x-order-id", ("S", "order-1")), ("stage", ("S", "SUBMITTED"))],
    ),
    "every-type": Scenario(headers=EVERY_TYPE),
    # as Spring AMQP sends it; the benchmarks' measure
    "typical": Scenario(
        properties=Properties(
            content_type="application/json",
            content_encoding="UTF-8",
            delivery_mode=2,
            priority=0,
            message_id="5f1c7a52-6c0e-4c1e-9d5b-0f3f4d1c2b3a",
        ),
        headers=[("__TypeId__", ("S", "com.example.crm.OrderSubmitted")), ("x-order-id", ("S", "ORD-20261122"))],
        body=b'{"orderId": "ORD-20261122", "status": "SUBMITTED", "customer": {"id": 17}}',
    ),
    "no-id": Scenario(),
    "default-exchange": Scenario(exchange="", routing_key="plain"),
    "unroutable": Scenario(routing_key="nobody", queues=(), answers=()),
    "fan-out": Scenario(exchange=FANOUT, routing_key="", queues=("fan-a", "fan-b"), answers=("ack", "ack")),
    "cc-bcc": Scenario(
        exchange="",
        routing_key="plain",
        headers=[("CC", ("A", [("S", "fan-a")])), ("BCC", ("A", [("S", "fan-b")])), ("kept", ("I", 1))],
        queues=("plain", "fan-a", "fan-b"),
        answers=("ack", "ack", "ack"),
    ),
    "rejected": Scenario(
        exchange="",
        routing_key="rejecting",
        properties=Properties(message_id="m-3", priority=3, timestamp=1_800_000_000),
        headers=EVERY_TYPE,
        queues=("rejecting",),
        answers=("reject", "ack"),
        death="rejected",
        delivered_from=("rejecting", "dead"),
    ),
    "expired": Scenario(
        exchange="",
        routing_key="expiring",
        properties=Properties(expiration="20", delivery_mode=2, correlation_id="order-2"),
        headers=[("stage", ("S", "PRICED")), ("twice", ("I", 1)), ("twice", ("I", 2)), ("deep", nested(5))],
        queues=("expiring",),
        death="expired",
        delivered_from=("dead",),
    ),
    "maxlen": Scenario(
        exchange="",
        routing_key="short",
        headers=[("CC", ("A", [])), ("stage", ("S", "CLOSED"))],
        queues=("short",),
        filler=True,
        death="maxlen",
        delivered_from=("dead",),
    ),
    "delivery-limit": Scenario(
        exchange="",
        routing_key="limited",
        properties=Properties(content_type="text/plain", reply_to="answers", expiration="600000", type="Order"),
        headers=[*EVERY_TYPE, ("name", ("S", b"caf\xe9"))],
        queues=("limited",),
        answers=("requeue", "requeue", "ack"),
        death="delivery_limit",
        delivered_from=("limited", "limited", "dead"),
    ),
    "redelivered": Scenario(
        exchange="",
        routing_key="quorum",
        properties=Properties(message_id="m-4"),
        queues=("quorum",),
        answers=("requeue", "ack"),
        delivered_from=("quorum", "quorum"),
    ),
    "reply-to": Scenario(properties=Properties(reply_to="amq.rabbitmq.reply-to")),
    "no-utf-8": Scenario(headers=[("name", ("S", b"caf\xe9")), ("bytes", ("S", bytes(range(128, 256))))]),
    "milliseconds": Scenario(
        properties=Properties(timestamp=1_800_000_000_123), headers=[("at", ("T", 1_800_000_000_123))]
    ),
    "largest-timestamp": Scenario(headers=[("at", ("T", 2**64 - 1))]),
    "nested": Scenario(headers=[("deep", nested(50))]),
    "longest-key": Scenario(routing_key="order." + "k" * 249),
    "duplicate-names": Scenario(headers=[("twice", ("S", "first")), ("twice", ("S", "second"))]),
    "empty-body": Scenario(body=b""),
}
