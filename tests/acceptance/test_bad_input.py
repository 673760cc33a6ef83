"""Messages that nobody should send: each is recorded, and so is what came before and after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import aiormq
import pytest
from aio_pika.abc import AbstractQueue

from auditor.core.events import Properties
from auditor.ledger.queries import Reader
from tests.acceptance import raw
from tests.acceptance.harness import Row
from tests.acceptance.scene import Scene
from tests.captures.scenarios import nested
from tests.tap.amqp import Table

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A message."""

    body: bytes = b'{"order": {"id": "A-1"}}'
    key: str = "orders"
    headers: Table | None = None
    properties: Properties | None = None


INPUTS = {
    "a header that is not UTF-8": Bad(headers=[("x-order-id", ("S", b"caf\xe9 \xff\xfe"))]),
    "a header name with a quote and a line break": Bad(headers=[("a'\";\n\x1b[2J", ("S", "x"))]),
    "an order id with control characters": Bad(
        headers=[("x-order-id", ("S", "A-1'; DROP TABLE hops; --\n\x00\x1b[2J"))]
    ),
    "an order id of a megabyte in the body": Bad(body=b'{"orderId": "' + b"A" * MIB + b'"}'),
    "an order id of 100 kB in a header": Bad(headers=[("x-order-id", ("S", "A" * 100_000))]),
    "a number where a text should be": Bad(headers=[("x-order-id", ("D", (255, -(2**31)))), ("x-stage", ("t", True))]),
    "a timestamp in milliseconds": Bad(
        headers=[("at", ("T", 1_800_000_000_123))], properties=Properties(timestamp=1_800_000_000_123)
    ),
    "the largest timestamp": Bad(headers=[("at", ("T", 2**64 - 1))], properties=Properties(timestamp=2**64 - 1)),
    "tables in tables": Bad(headers=[("deep", nested(50))]),
    "an x-death that is none": Bad(headers=[("x-death", ("A", [("S", "no"), ("F", [("queue", ("I", 1))])]))]),
    "an x-death that is forged": Bad(
        headers=[("x-death", ("A", [("F", [("queue", ("S", "elsewhere")), ("reason", ("S", "expired"))])]))]
    ),
    "an x-death that is a text": Bad(headers=[("x-death", ("S", "rejected"))]),
    "no body": Bad(body=b""),
    "a body of 16 MiB": Bad(body=b"x" * (16 * MIB)),
    "a body that is no JSON": Bad(body=b"\x00\xff{"),
    "a body of JSON that is no object": Bad(body=b"[[[1e999, null, -0]]]"),
    "a body of JSON nested deeply": Bad(body=b"[" * 100_000 + b"]" * 100_000),
    "a body with half a surrogate": Bad(body=b'{"orderId": "\\ud800"}'),
    "a body with a number of 5,000 digits": Bad(body=b'{"orderId": ' + b"9" * 5_000 + b"}"),
    "a routing key of 247 bytes": Bad(key="k" * 247),
    "a routing key of 255 bytes": Bad(key="k" * 255),
    "the empty routing key": Bad(key=""),
    "properties of 255 bytes": Bad(
        properties=Properties(message_id="m" * 255, correlation_id="c" * 255, type="t" * 255)
    ),
}


@pytest.fixture
async def inbox(scene: Scene) -> AsyncIterator[AbstractQueue]:
    """A queue that an exchange sends everything to."""
    exchange = await scene.exchange("orders", "fanout")
    inbox = await scene.queue("inbox")
    await inbox.bind(exchange)
    yield inbox
    await inbox.delete(if_unused=False, if_empty=False)


@pytest.mark.parametrize("bad", [pytest.param(bad, id=name) for name, bad in INPUTS.items()])
async def test_it_is_recorded_and_so_are_its_neighbours(scene: Scene, inbox: AbstractQueue, bad: Bad) -> None:
    exchange = inbox.name.removesuffix("inbox") + "orders"
    channel = await scene.channel.get_underlay_channel()
    for message in (Bad(body=b"before"), bad, Bad(body=b"after")):
        await raw.publish(
            channel,
            message.body,
            exchange=exchange,
            key=message.key,
            headers=message.headers,
            properties=message.properties,
        )
    consumer = raw.BlindConsumer(scene.auditor.broker, scene.auditor.vhost, inbox.name)
    assert await consumer.take(3, 30) == [b"before", bad.body, b"after"]

    def all_three(reader: Reader) -> list[Row]:
        rows = reader.hops(queue=inbox.name)
        return rows if len(rows) == 3 and all(row["attempts"] for row in rows) else []

    rows = await scene.auditor.until(all_three, "three deliveries in the ledger")
    assert sorted((row["size"], row["routing_key"], row["state"]) for row in rows) == sorted(
        [(6, "orders", "delivered"), (len(bad.body), bad.key, "delivered"), (5, "orders", "delivered")]
    )
    (status,) = await scene.auditor.answer("status")
    assert (status["running"], status["pid"], status["undecodable"]) == (True, scene.auditor.pid, 0)
    # people can look at it, too: the terminal gets nothing that it would obey
    shown = await scene.auditor.shown("hops", "--queue", inbox.name)
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 2 + 3


NAMES = {
    "a name of 247 bytes": "q" * 247,  # "deliver." takes eight of a routing key's 255
    "a long name in another alphabet": "x" + "ö" * 110,
    "a name of characters that pamqp does not take": "orders=eu (größe) [1] 'x'",
    "a name that is SQL and a terminal's escape": "'; DROP TABLE hops; --\x1b[2J",
}


async def test_a_queue_may_have_any_name(scene: Scene) -> None:
    channel = await scene.channel.get_underlay_channel()
    assert isinstance(channel, aiormq.Channel)
    names = [(scene.prefix + name).encode()[:247].decode(errors="ignore") for name in NAMES.values()]
    for name in names:
        await channel.rpc(raw.AnyDeclare(queue=name, durable=True))
        await scene.publish("m1", name.removeprefix(scene.prefix))
    # each is looked into: it is there, and there is nobody to serve it
    claims = await scene.claims()
    assert sorted((scene.prefix + claim[1], claim[2]) for claim in claims) == sorted((name, "stuck") for name in names)
    api = scene.auditor.broker.management
    take = {"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"}
    for name in names:
        get = partial(api.post, "queues", scene.auditor.vhost, name, "get", json=take)
        assert len(await asyncio.to_thread(get)) == 1
    assert [hop[2] for hop in await scene.hops()] == ["late"] * len(names)
    assert scene.auditor.alive
