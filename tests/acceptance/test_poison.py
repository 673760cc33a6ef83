"""Events that the broker cannot deliver: each ends the auditor's connection, but neither the auditor nor the audit."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from auditor.ledger.queries import Reader
from tests.acceptance.harness import Auditor
from tests.acceptance.scene import Scene, open_scene
from tests.support.vhost import Vhost

POISONOUS = 250  # bytes of a queue's name; with "deliver." in front it is longer than a routing key may be
PATIENCE = 90.0  # seconds

pytestmark = pytest.mark.timeout(240)


async def poison(scene: Scene) -> str:
    """Have a message delivered from a queue whose name is too long, one before and one after it; return the name."""
    name = "q" * (POISONOUS - len(scene.prefix))
    queues = [await scene.queue(name) for name in ("before", name, "after")]
    for number, queue in enumerate(queues, 1):
        await scene.publish(f"m{number}", queue.name.removeprefix(scene.prefix))
        await scene.consume(queue)
        await scene.arrived(number)
    return name


async def taken_out(auditor: Auditor, word: str) -> None:
    """Wait until the auditor says that the event is gone."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while word not in auditor.log:
        assert auditor.alive, auditor.log
        assert asyncio.get_running_loop().time() < end, auditor.log
        await asyncio.sleep(0.5)


async def test_with_the_management_api_the_one_event_is_taken_out_and_recorded(auditor: Auditor) -> None:
    auditor.settings["flows"][0]["deadline"] = 10
    auditor.start()
    await auditor.reading()
    auditor.stop()
    async with open_scene(auditor, "poison") as scene:
        name = await poison(scene)
        # all of it stands in the trace queue, so what comes after the event is handed out, and given back, with it
        auditor.start()
        await taken_out(auditor, "Took the event")
        await auditor.reading()
        assert await scene.hops() == [
            ("m1", "before", "delivered", None),
            ("m2", name, "delivered", None),
            ("m3", "after", "delivered", None),
        ]
    with Reader.open(auditor.ledger) as reader:
        assert [gap["reason"] for gap in reader.gaps()] == ["first_start"]


async def test_without_it_the_queue_is_emptied_and_the_loss_is_a_gap(auditor: Auditor, vhost: Vhost) -> None:
    auditor.settings["broker"]["management"] = {}
    auditor.settings["flows"][0]["deadline"] = 10
    switch = partial(vhost.broker.management.put, "vhosts", vhost.name, json={"tracing": True})
    await asyncio.to_thread(switch)
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "poison") as scene:
        name = await poison(scene)
        await taken_out(auditor, "emptied it")
        await auditor.reading()
        # what was thrown away is not claimed to be lost, and what comes afterwards is seen
        await auditor.until(lambda reader: len(reader.gaps()) == 2, "a second gap")
        await scene.publish("m4", "after")
        await scene.arrived(4)
        hops = await scene.hops()
        assert ("m1", "before", "delivered", None) in hops
        assert ("m4", "after", "delivered", None) in hops
        assert {state for id, queue, state, _ in hops if queue == name} <= {"in_flight", "unknown"}
        assert await scene.claims() == []
    with Reader.open(auditor.ledger) as reader:
        assert [gap["reason"] for gap in reader.gaps()] == ["poison", "first_start"]
    assert auditor.log.count("emptied it") == 1
