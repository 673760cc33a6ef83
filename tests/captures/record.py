"""Records trace messages of a broker, for the decoder's tests: one file for each, as it came over the wire.

    python -m tests.captures.record --url amqp://guest:guest@127.0.0.1:5672 --management http://127.0.0.1:15672

The user must be an administrator and named as in `scenarios.USER`. A vhost of its own is made and deleted again. The
files go to a folder named as the broker's version; what was there for a scenario is replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any, cast

from aio_pika.connection import Connection
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic
from yarl import URL

from auditor.demo.management import Management
from auditor.tap.connection import Endpoint, SplittingReader, connect, connect_tap, wall_clock
from auditor.tap.consumer import Tap
from auditor.tap.management import Management as FirehoseSwitch
from auditor.tap.topology import broker_version, declare_trace_queue
from auditor.tap.wire import Content
from tests.captures.scenarios import DEAD, FANOUT, SCENARIOS, TOPIC, VHOST, Scenario
from tests.tap.amqp import encode_properties

_LIMIT = 15.0  # seconds that one event may take
_FILLER = b"filler"
_DEAD_LETTER = {"x-dead-letter-exchange": DEAD, "x-dead-letter-routing-key": "was.dead"}
_QUEUES: dict[str, dict[str, Any]] = {
    "plain": {},
    "fan-a": {},
    "fan-b": {},
    "dead": {},
    "rejecting": _DEAD_LETTER,
    "expiring": _DEAD_LETTER,
    "short": {**_DEAD_LETTER, "x-max-length": 1},
    "limited": {**_DEAD_LETTER, "x-queue-type": "quorum", "x-delivery-limit": 1},
    "quorum": {"x-queue-type": "quorum"},
}
_CONSUMED = ("plain", "fan-a", "fan-b", "dead", "rejecting", "limited", "quorum")


class _RawProperties(Basic.Properties):
    """Properties in bytes of our own, for what pamqp would not send."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(message_id="aiormq makes one up where it sees none")
        self._raw = raw

    def marshal(self) -> bytes:
        return self._raw


class _Consumer:
    """Consumes without decoding, because client libraries fall over some of these messages."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self._reader = SplittingReader(self._wake.set, 1 << 30, wall_clock)
        self._channel: AbstractChannel | None = None

    async def open(self, endpoint: Endpoint) -> Connection:
        connection = await connect_tap(endpoint, "captures consumer", self._reader)
        assert connection.transport is not None
        self._channel = await connection.transport.connection.channel()
        self._reader.splitter.watch(self._channel.number)
        for queue in _CONSUMED:
            await self._channel.basic_consume(queue, _never)
        return connection

    async def answer(self, how: str) -> None:
        """Wait for one delivery and answer it."""
        contents = self._reader.splitter.contents
        while not contents:
            self._wake.clear()
            await asyncio.wait_for(self._wake.wait(), _LIMIT)
        tag = contents.pop(0).delivery_tag
        assert self._channel is not None
        if how == "ack":
            await self._channel.basic_ack(tag)
        else:
            await self._channel.basic_nack(tag, requeue=how == "requeue")


async def _never(_: Any) -> None:
    pass


async def record(endpoint: Endpoint, folder: Path) -> None:
    """Record every scenario on an empty vhost whose firehose is on."""
    control = await connect(endpoint, "captures control")
    await declare_trace_queue(control, "trace", ["#"], 1 << 30)
    assert control.transport is not None
    channel = await control.transport.connection.channel(publisher_confirms=False)
    await _declare(channel)
    consumer = _Consumer()
    consuming = await consumer.open(endpoint)
    tap = Tap(endpoint, "trace", prefetch=1000, max_buffered=1 << 30)
    await tap.open()
    target = folder / broker_version(control)
    target.mkdir(exist_ok=True)
    for name, scenario in SCENARIOS.items():
        for old in target.glob(f"{name}.*.json"):
            old.unlink()
        await _publish(channel, scenario)
        for answer in scenario.answers:
            await consumer.answer(answer)
        counts = {"publish": 0, "deliver": 0}
        for content in await _events(tap, 1 + scenario.filler + len(scenario.answers)):
            if content.body == _FILLER:
                continue
            kind = content.routing_key.partition(b".")[0].decode()
            counts[kind] += 1
            _write(target / f"{name}.{kind}-{counts[kind]}.json", content)
    await tap.close()
    await consuming.close()
    await control.close()


async def _declare(channel: AbstractChannel) -> None:
    for exchange, kind in ((TOPIC, "topic"), (FANOUT, "fanout"), (DEAD, "topic")):
        await channel.exchange_declare(exchange, exchange_type=kind)
    for queue, arguments in _QUEUES.items():
        await channel.queue_declare(queue, durable=True, arguments=arguments)
    await channel.queue_bind("plain", TOPIC, "order.#")
    await channel.queue_bind("fan-a", FANOUT)
    await channel.queue_bind("fan-b", FANOUT)
    await channel.queue_bind("dead", DEAD, "#")
    # direct reply-to wants a consumer on the channel that publishes
    await channel.basic_consume("amq.rabbitmq.reply-to", _never, no_ack=True)


async def _publish(channel: AbstractChannel, scenario: Scenario) -> None:
    raw = _RawProperties(encode_properties(scenario.properties, scenario.headers))
    sendings = [(scenario.body, raw)]
    if scenario.filler:
        sendings.append((_FILLER, raw))
    for body, properties in sendings:
        await channel.basic_publish(
            body, exchange=scenario.exchange, routing_key=scenario.routing_key, properties=properties
        )


async def _events(tap: Tap, count: int) -> list[Content]:
    """Return this many trace messages; TimeoutError when they do not come."""
    found: list[Content] = []
    deadline = time.monotonic() + _LIMIT
    while len(found) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(found)} of {count} events: {[one.routing_key for one in found]}")
        found += await tap.batch(1000, 0.05, 1.0)
    assert len(found) == count, f"{count} events were expected: {[one.routing_key for one in found]}"
    await tap.acknowledge(found[-1])
    return found


def _write(path: Path, content: Content) -> None:
    message = {
        "routing_key": content.routing_key.decode(),
        "properties": base64.b64encode(content.properties).decode(),
        "body": base64.b64encode(content.body).decode(),
    }
    path.write_text(json.dumps(message, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Record on the broker that the command line names."""
    parser = argparse.ArgumentParser(description="Record trace messages of a broker.")
    parser.add_argument("--url", required=True, type=URL, help="amqp://USER:PASSWORD@HOST:PORT")
    parser.add_argument("--management", required=True, help="http://HOST:PORT of the management API")
    given = parser.parse_args()
    url: URL = given.url
    user, password = url.user or "guest", url.password or "guest"
    management = Management(cast(str, given.management), user, password)
    management.put("vhosts", VHOST, json={})
    management.put("permissions", VHOST, user, json={"configure": ".*", "write": ".*", "read": ".*"})
    FirehoseSwitch(url=given.management, user=user, password=password).turn_firehose_on(VHOST)
    try:
        endpoint = Endpoint(
            host=url.host or "127.0.0.1", port=url.port or 5672, vhost=VHOST, user=user, password=password
        )
        asyncio.run(record(endpoint, Path(__file__).parent))
    finally:
        management.delete("vhosts", VHOST)


if __name__ == "__main__":
    main()
