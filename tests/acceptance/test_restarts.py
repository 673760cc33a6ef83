"""A broker that keeps the firehose on over its restarts, as config/rabbitmq shows: nothing goes unaudited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditor.demo.broker import PrivateBroker
from tests.acceptance.harness import Auditor
from tests.acceptance.scene import open_scene

ADVANCED = Path(__file__).parents[2] / "config" / "rabbitmq" / "advanced.config"


@pytest.fixture
def node(node_wrapper: list[str]) -> Iterator[PrivateBroker]:
    """A node with our advanced.config."""
    with PrivateBroker(node_wrapper, advanced=ADVANCED.read_text()) as node:
        yield node


@pytest.mark.timeout(300)
async def test_a_broker_that_keeps_the_firehose_on_needs_nobody_to_turn_it_on(
    node: PrivateBroker, tmp_path: Path
) -> None:
    auditor = await asyncio.to_thread(Auditor, node, "/", tmp_path)
    auditor.settings["tap"]["enable_firehose"] = False
    auditor.settings["audit"]["completeness_interval"] = 1.0

    async def compared_since(at: int) -> None:
        await auditor.until(
            lambda reader: (row := auditor.status(reader)) and (row["counted_since_at"] or 0) > at,
            "the counters are compared",
            bound=90,
        )

    try:
        auditor.start()
        await auditor.reading()
        async with open_scene(auditor, "before") as before:
            await before.queue("inbox")
            await before.publish("m1")
            await before.settled()
        await compared_since(0)
        stopped_at = time.time_ns() // 1000
        await asyncio.to_thread(node.stop)
        await asyncio.to_thread(node.start)
        # nobody turns anything on; but what is published before the trace queue has found its leader is not seen,
        # and a canary that is missing tells
        async with open_scene(auditor, "after") as after:
            await auditor.reading()
            started_at = time.time_ns() // 1000
            await after.publish("m2", "nowhere")
            assert ("m2", "nowhere", "lost", "queue_missing") in await after.claims()
        outage = started_at - stopped_at + 1_000_000  # a gap begins with the last canary before it
        gaps = auditor.ask(lambda reader: reader.gaps())
        for gap in gaps[:-1]:
            assert gap["to_at"] - gap["from_at"] <= outage
        assert gaps[-1]["reason"] == "first_start"
        (coverage,) = auditor.ask(lambda reader: reader.coverage())
        assert coverage["gap_seconds"] * 1e6 <= outage
        # the counters have begun again, and what is compared with them has too
        await compared_since(stopped_at)
        assert "incomplete" not in [gap["reason"] for gap in auditor.ask(lambda reader: reader.gaps())]
    finally:
        await asyncio.to_thread(auditor.close)
