"""Why the auditor was blind: found out, told and mended."""

from __future__ import annotations

import asyncio

from tests.acceptance.harness import QUEUE, Auditor, Row
from tests.acceptance.scene import open_scene

FIRST = "first_start"  # the gap that every ledger begins with


async def gaps(auditor: Auditor, count: int) -> list[Row]:
    """Wait until so many gaps are over, and return them, the oldest first."""
    return await auditor.until(
        lambda reader: (
            found[::-1] if len(found := reader.gaps()) >= count and not any(gap["open"] for gap in found) else None
        ),
        f"{count} gaps",
    )


async def test_a_binding_that_was_deleted_is_made_again_and_leaves_a_gap(auditor: Auditor) -> None:
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "binding") as scene:
        api = auditor.broker.management
        inbox = await scene.queue("inbox")
        await scene.publish("m1")
        await auditor.seen()
        bindings = await asyncio.to_thread(api.get, "queues", auditor.vhost, QUEUE, "bindings")
        for one in bindings:
            if one["source"]:
                where = ("bindings", auditor.vhost, "e", one["source"], "q", QUEUE, one["properties_key"])
                await asyncio.to_thread(api.delete, *where)
        await inbox.purge()
        assert [gap["reason"] for gap in await gaps(auditor, 2)] == [FIRST, "blind"]
        await scene.becomes("m1", "unknown")
        assert "no longer bound with '#': bound it again" in auditor.log
        await auditor.reading()
        await scene.publish("m2", "nowhere")
        await scene.becomes("m2", "lost")


async def test_a_trace_queue_that_dropped_events_while_the_auditor_was_away_leaves_a_gap(auditor: Auditor) -> None:
    auditor.settings["tap"]["max_bytes"] = 1024 * 1024
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "overflow") as scene:
        inbox = await scene.queue("inbox")
        await scene.publish("m1", "inbox")
        await auditor.seen()
        await asyncio.to_thread(auditor.stop)
        await scene.consume(inbox)
        await scene.arrived(1)  # of which the trace queue will drop the event
        for number in range(30):
            await scene.publish(f"big-{number}", "elsewhere", body=b"x" * 100_000)
        auditor.start()
        await auditor.reading()
        await scene.becomes("m1", "unknown")
        assert [row["reason"] for row in await scene.message("m1")] == ["overflow"]
    assert [gap["reason"] for gap in await gaps(auditor, 2)] == [FIRST, "overflow"]
