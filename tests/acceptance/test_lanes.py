"""The whole auditor by either lane, told by its ledger; and how soon an event is in it when there is nothing to do."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from auditor.ledger.queries import Reader
from tests.acceptance.harness import Auditor
from tests.acceptance.scene import open_scene

SOON = 2.0  # seconds; it takes a tenth of one, and a shared machine may stop for longer than that

each_lane = pytest.mark.parametrize("lane", ["fast", "plain"])


@each_lane
async def test_the_same_traffic_is_the_same_ledger_by_each_lane(auditor: Auditor, lane: str) -> None:
    auditor.settings["tap"]["consumer"] = lane
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "lanes") as scene:
        inbox, shelf = await scene.queue("inbox"), await scene.queue("shelf")
        everywhere = await scene.exchange("everywhere")
        await inbox.bind(everywhere)
        await shelf.bind(everywhere)
        dead, to_dead = await scene.dead_letter_queue("dead")
        await scene.queue("short", x_max_length=1, **to_dead)
        await scene.consume(inbox)
        await scene.consume(dead)
        headers = {
            "x-order-id": "A-1047",
            "flags": [True, None, 1.5, -7, 2**40],
            "deep": {"er": {"café": bytearray(b"\xff")}},
        }
        await scene.publish("to both", exchange=everywhere, headers=headers, priority=4, expiration=3600)
        await scene.publish("to nobody", "nowhere")
        await scene.publish(None, "inbox", body=b"")
        await scene.publish("first", "short")
        await scene.publish("pushes it out", "short")
        await scene.arrived(3)
        assert await scene.hops() == [
            ("first", "dead", "delivered", None),
            ("first", "short", "dead_lettered", "maxlen"),
            ("pushes it out", "short", "stuck", "no_consumer"),
            ("to both", "inbox", "delivered", None),
            ("to both", "shelf", "stuck", "no_consumer"),
            ("to nobody", "nowhere", "lost", "queue_missing"),
            (None, "inbox", "delivered", None),
        ]
        row, *_ = await scene.message("to both")
        assert (row["order_id"], row["priority"], row["size"]) == ("A-1047", 4, len(b'{"hello": "world"}'))
    (status,) = await auditor.answer("status")
    assert (status["undecodable"], status["orphans"]) == (0, 0)


@each_lane
async def test_a_single_message_is_in_the_ledger_soon(auditor: Auditor, lane: str) -> None:
    auditor.settings["tap"]["consumer"] = lane
    auditor.start()
    await auditor.reading()
    rng = random.Random(1)
    async with open_scene(auditor, "soon") as scene:
        await scene.queue("inbox")
        for number in range(8):
            await scene.publish(f"m-{number}")
            assert await asyncio.to_thread(wait_for, auditor, f"{scene.prefix}m-{number}") < SOON
            await asyncio.sleep(rng.uniform(0, 0.3))


def wait_for(auditor: Auditor, message: str) -> float:
    """Seconds from this call until a message is in the ledger, or SOON when it takes longer."""
    began = time.monotonic()
    with Reader.open(auditor.ledger) as reader:
        while (waited := time.monotonic() - began) < SOON:
            if reader.message(message):
                return waited
            time.sleep(0.005)
    return SOON
