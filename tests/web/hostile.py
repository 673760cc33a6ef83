"""Messages that somebody made to do harm, sent through the broker while an auditor reads."""

from __future__ import annotations

import aio_pika
import aiormq

from auditor.core.events import Properties
from auditor.core.extract import text
from tests.acceptance import raw
from tests.acceptance.harness import BOUND, Auditor

HOSTILE = {
    "script": b"<script>document.title='broken'</script><img src=x onerror=alert(1)>",
    "quote": b"\"'><svg onload=alert(2)>{{7*7}}",
    "right-to-left": "A-\u202e0001\u2066-\u05d0\u05d1\u05d2".encode(),
    "control": "NUL\x00ESC\x1b[31m\u2028line".encode(),
    "long": b"long-" + b"x" * 3000,
    "formula": b'=HYPERLINK("http://example.com","x")',
    "slashes": b"../../etc/passwd?x=1&y=%2e#z",
    "not UTF-8": b"caf\xe9\xff\xc0\xafA",
}
"""Bytes that somebody could put wherever a message, or a queue, is given a name."""


def told(kind: str) -> str:
    """Return what the auditor takes an id for that is made of these bytes."""
    found = text(HOSTILE[kind].decode(errors="backslashreplace"))
    assert found is not None
    return found


async def send(auditor: Auditor) -> None:
    """Send orders of each kind, to queues of the same names that nobody serves, and wait for the verdicts."""
    await auditor.reading()
    async with await aio_pika.connect(auditor.broker.url(auditor.vhost), timeout=BOUND) as connection:
        channel = await (await connection.channel()).get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        for name in HOSTILE.values():
            queue = name[:200].decode(errors="replace")  # in names the broker itself insists on UTF-8
            await channel.rpc(raw.AnyDeclare(queue=queue, durable=True))
            id = raw.RawText(name[:255])
            for stage in (b"INITIATED", name):
                found = {"x-order-id": name, "x-stage": stage, "x-user-id": name, "x-error": name, id: name}
                await raw.publish(
                    channel,
                    b"",
                    key=queue,
                    headers=[(header, ("S", value)) for header, value in found.items()],
                    properties=Properties(message_id=id, type=id),
                )
    await auditor.until(lambda reader: len(reader.lost()) == 2 * len(HOSTILE), "a verdict on each")


async def send_order(auditor: Auditor, order: str) -> None:
    """Send a harmless order, which is routed nowhere."""
    async with await aio_pika.connect(auditor.broker.url(auditor.vhost), timeout=BOUND) as connection:
        channel = await (await connection.channel()).get_underlay_channel()
        await raw.publish(channel, b"", key="nowhere", headers=[("x-order-id", ("S", order))])
