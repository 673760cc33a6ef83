"""The trace queue has one reader: what another one holds is waited for, and nobody is accused meanwhile."""

from __future__ import annotations

import asyncio

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from tests.acceptance.harness import BOUND, DEADLINE, QUEUE, Auditor
from tests.acceptance.scene import open_scene
from tests.support.vhost import Vhost


async def test_what_another_reader_holds_is_waited_for_and_nobody_is_accused(auditor: Auditor, vhost: Vhost) -> None:
    """So does a connection that broke hold events, until the broker notices."""
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "reader") as scene:
        inbox = await scene.queue("inbox")
        await scene.publish("m1")
        await auditor.seen()
        await asyncio.to_thread(auditor.stop)
        other = await aio_pika.connect(vhost.url)
        async with other:
            channel = await other.channel()
            await channel.set_qos(prefetch_count=100)
            holding = await channel.get_queue(QUEUE, ensure=False)
            held = asyncio.Event()

            async def hold(event: AbstractIncomingMessage) -> None:  # and never acknowledge it
                if event.routing_key == f"deliver.{inbox.name}":
                    held.set()

            await holding.consume(hold)
            await scene.consume(inbox)
            await scene.arrived(1)
            await asyncio.wait_for(held.wait(), BOUND)
            auditor.start()
            await auditor.until(
                lambda reader: "Somebody else reads" in (next(iter(reader.status()))["problem"] or ""), "it says so"
            )
            await asyncio.sleep(2 * DEADLINE)
            assert await auditor.answer("lost") == []
        await auditor.reading()
        await scene.becomes("m1", "delivered")
        assert await scene.hops() == [("m1", "inbox", "delivered", None)]
