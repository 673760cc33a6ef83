"""A cluster of two nodes: the firehose is each node's own affair."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from auditor.demo.broker import PrivateBroker
from auditor.tap.topology import queue_arguments
from tests.acceptance.harness import BOUND, QUEUE, Auditor
from tests.acceptance.scene import Scene, open_scene
from tests.faults.steady import check_all_is_well
from tests.faults.tally import Count, fault

VHOST = "cluster"

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def cluster(node_wrapper: list[str]) -> Iterator[tuple[PrivateBroker, PrivateBroker]]:
    """Two nodes of one broker, which a test may break and mend."""
    with PrivateBroker(node_wrapper) as first, PrivateBroker(node_wrapper, beside=first) as second:
        second.join()
        yield first, second


@pytest.fixture
async def auditor(cluster: tuple[PrivateBroker, PrivateBroker], tmp_path: Path) -> AsyncIterator[Auditor]:
    """An auditor of both nodes that was not started yet; it may switch the firehose of the first one only."""
    first, second = cluster
    await asyncio.to_thread(first.add_vhost, VHOST)
    auditor = await asyncio.to_thread(Auditor, first, VHOST, tmp_path)
    auditor.settings["broker"]["nodes"] = [second.amqp_url]
    auditor.settings["tap"]["canary_timeout"] = 1.0
    # with one member only: it lives as long as the first node does
    async with await aio_pika.connect(first.url(VHOST), timeout=BOUND) as connection:
        channel = await connection.channel()
        arguments = queue_arguments(first.version, 1 << 30) | {"x-quorum-initial-group-size": 1}
        await channel.declare_queue(QUEUE, durable=True, arguments=arguments)
    yield auditor
    await asyncio.to_thread(auditor.close)
    await asyncio.to_thread(first.delete_vhost, VHOST)


async def trace(node: PrivateBroker, on: bool) -> None:
    """Switch the firehose of one node."""
    await asyncio.to_thread(partial(node.management.put, "vhosts", VHOST, json={"tracing": on}))


def name_of(node: PrivateBroker) -> str:
    return f"{node.host}:{node.port}"


@asynccontextmanager
async def scene_on(auditor: Auditor, node: PrivateBroker, count: Count) -> AsyncIterator[Scene]:
    """A scene whose applications are connected to this node."""
    theirs, auditor.broker = auditor.broker, node
    try:
        async with open_scene(auditor, "node", count) as scene:
            yield scene
    finally:
        auditor.broker = theirs


async def problem(auditor: Auditor, *words: str) -> Any:
    """Wait until the status tells of a problem with these words."""
    return await auditor.until(
        lambda reader: (
            (row := auditor.status(reader))
            and row["problem"]
            and all(word in row["problem"] for word in words)
            and row["problem"]
        ),
        f"a problem with {words}",
    )


@fault("one of two nodes untraced")
async def test_while_one_of_two_nodes_is_not_traced_nothing_is_claimed(
    cluster: tuple[PrivateBroker, PrivateBroker], auditor: Auditor, count: Count
) -> None:
    first, second = cluster
    await trace(second, True)
    auditor.start()
    await auditor.reading()
    async with scene_on(auditor, second, count) as scene:
        inbox = await scene.in_flight("m1")
        await trace(second, False)
        await scene.consume(inbox)  # which nobody sees
        await scene.arrived(1)
        said = await problem(auditor, "Blind", name_of(second), "rabbitmqctl trace_on")
        assert name_of(first) not in said
        await trace(second, True)
        await scene.becomes("m1", "unknown")
        await auditor.reading()
        await check_all_is_well(scene)


@fault("one of two nodes untraced")
async def test_the_firehose_is_turned_on_on_each_node_whose_management_is_known(
    cluster: tuple[PrivateBroker, PrivateBroker], auditor: Auditor, count: Count
) -> None:
    _, second = cluster
    await trace(second, False)
    auditor.settings["broker"]["management"]["nodes"] = [second.management_url]
    auditor.start()
    await auditor.reading()
    async with scene_on(auditor, second, count) as scene:
        await scene.queue("inbox")
        await scene.publish("m1", "inbox")
        await trace(second, False)
        await auditor.until(lambda reader: len(reader.gaps()) > 1, "a gap")
        await auditor.reading()
    assert {gap["reason"] for gap in auditor.ask(lambda reader: reader.gaps())} == {"first_start", "firehose_off"}
    assert f"The firehose was off on {second.name}: turned it on" in auditor.log


@fault("one of two nodes away")
async def test_a_node_that_is_away_holds_nothing_up_but_leaves_a_gap(
    cluster: tuple[PrivateBroker, PrivateBroker], auditor: Auditor, count: Count
) -> None:
    first, second = cluster
    await trace(second, True)
    auditor.start()
    await auditor.reading()
    async with scene_on(auditor, first, count) as scene:
        inbox = await scene.in_flight("m1")
        await asyncio.to_thread(second.kill)
        try:
            await problem(auditor, "Cannot reach", name_of(second))
            await auditor.seen()  # the watermark goes on
            await inbox.purge()
            await scene.becomes("m1", "unknown")
            await scene.publish("m2", "inbox")
            await scene.consume(inbox)
            await scene.becomes("m2", "delivered")
        finally:
            await asyncio.to_thread(second.start)
        await trace(second, True)
        await auditor.reading()  # its gap is over
        await check_all_is_well(scene)
    assert [gap["reason"] for gap in auditor.ask(lambda reader: reader.gaps())][:1] == ["blind"]
