"""What happens to the broker, the firehose and the connection: the audit goes on, and says what it could not see."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from auditor.demo.broker import PrivateBroker, program
from tests.acceptance.harness import QUEUE, Auditor, Row
from tests.acceptance.scene import Scene, open_scene

FIRST = "first_start"  # the gap that every ledger begins with


@pytest.fixture
async def scene(auditor: Auditor) -> AsyncIterator[Scene]:
    """A scene with an auditor of its own, which reads."""
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "outage") as scene:
        yield scene


async def check_all_is_well(scene: Scene) -> None:
    """Check that the auditor sees and judges what happens from now on."""
    await scene.auditor.reading()
    inbox = await scene.queue("afterwards")
    await scene.publish("fine", "afterwards")
    await scene.consume(inbox)
    await scene.arrived(1)
    lost = await scene.queue("lost")
    await scene.publish("lost", "lost")
    await lost.purge()
    hops = await scene.hops()
    assert ("fine", "afterwards", "delivered", None) in hops
    assert ("lost", "lost", "lost", "queue_empty") in hops


async def gaps(auditor: Auditor, count: int) -> list[Row]:
    """Wait until so many gaps are over, and return them, the oldest first."""
    return await auditor.until(
        lambda reader: (
            found[::-1] if len(found := reader.gaps()) >= count and not any(gap["open"] for gap in found) else None
        ),
        f"{count} gaps",
    )


async def test_a_closed_connection_costs_nothing(scene: Scene) -> None:
    auditor = scene.auditor
    api = auditor.broker.management
    await scene.queue("inbox")
    for number, name in enumerate(await auditor.connections()):
        await scene.publish(f"m{number}")
        await asyncio.to_thread(api.delete, "connections", name)
    await scene.publish("m2")
    # they are judged: nothing was missed, because the trace queue kept it
    assert await scene.claims() == [(id, "inbox", "stuck", "no_consumer") for id in ("m0", "m1", "m2")]
    assert [gap["reason"] for gap in await gaps(auditor, 1)] == [FIRST]
    assert "Lost" in auditor.log
    await check_all_is_well(scene)


async def test_a_deleted_trace_queue_is_made_again_and_leaves_a_gap(scene: Scene) -> None:
    auditor = scene.auditor
    inbox = await scene.queue("inbox")
    await scene.publish("m1")
    await auditor.seen()
    await asyncio.to_thread(auditor.broker.management.delete, "queues", auditor.vhost, QUEUE)
    await inbox.purge()
    assert [gap["reason"] for gap in await gaps(auditor, 2)] == [FIRST, "queue_gone"]
    # a delivery would not have been seen
    await scene.becomes("m1", "unknown")
    assert [hop for hop in await scene.hops() if hop[0] == "m1"] == [("m1", "inbox", "unknown", "queue_gone")]
    await check_all_is_well(scene)


async def test_a_firehose_that_went_off_is_turned_on_and_leaves_a_gap(scene: Scene) -> None:
    auditor = scene.auditor
    api = auditor.broker.management
    inbox = await scene.queue("inbox")
    await scene.publish("m1")
    await auditor.seen()
    await asyncio.to_thread(partial(api.put, "vhosts", auditor.vhost, json={"tracing": False}))
    await scene.publish("unseen")
    await inbox.purge()
    assert [gap["reason"] for gap in await gaps(auditor, 2)] == [FIRST, "firehose_off"]
    await scene.becomes("m1", "unknown")
    assert [hop for hop in await scene.hops() if hop[1] == "inbox"] == [("m1", "inbox", "unknown", "blind")]
    assert "turned it on" in auditor.log
    assert "rabbitmqctl trace_on" in auditor.log
    await check_all_is_well(scene)


async def test_without_management_it_stays_blind_says_the_command_and_claims_nothing(auditor: Auditor) -> None:
    auditor.settings["broker"]["management"] = {}
    auditor.settings["tap"]["canary_timeout"] = 1
    auditor.start()
    problem = await auditor.until(lambda reader: (row := auditor.status(reader)) and row["problem"], "a problem")
    assert f"rabbitmqctl trace_on -p {auditor.vhost}" in problem
    async with open_scene(auditor, "blind") as scene:
        await scene.publish("m1", "nowhere")
        assert await auditor.answer("hops") == []
        switch = partial(auditor.broker.management.put, "vhosts", auditor.vhost, json={"tracing": True})
        await asyncio.to_thread(switch)
        await check_all_is_well(scene)


@pytest.fixture
def node(test_environ: dict[str, str], broker: object) -> Iterator[PrivateBroker]:
    """A node that the test may break."""
    wrapper = shlex.split(test_environ.get("AUDITOR_TEST_RABBITMQ_COMMAND", ""))
    if not wrapper and not program("rabbitmq-server"):
        pytest.skip("RabbitMQ is not installed here: the tests use a broker that was given, or a container")
    with PrivateBroker(wrapper) as node:
        yield node


@pytest.mark.timeout(240)
async def test_a_broker_that_restarts_leaves_a_gap(node: PrivateBroker, tmp_path: Path) -> None:
    vhost = "outage"
    await asyncio.to_thread(node.add_vhost, vhost)
    auditor = await asyncio.to_thread(Auditor, node, vhost, tmp_path)
    try:
        auditor.start()
        await auditor.reading()
        async with open_scene(auditor, "before") as scene:
            await scene.queue("inbox")
            await scene.publish("m1")
            await auditor.seen()
        await asyncio.to_thread(node.restart)
        async with open_scene(auditor, "after") as after:
            # the firehose is off after a restart: the auditor turns it on
            assert [gap["reason"] for gap in await gaps(auditor, 2)] == [FIRST, "firehose_off"]
            # not persistent, so gone with the restart; but was it delivered before? nobody can say
            await scene.becomes("m1", "unknown")
            await check_all_is_well(after)
        assert auditor.log.count("Lost the") == 1
    finally:
        await asyncio.to_thread(auditor.close)
