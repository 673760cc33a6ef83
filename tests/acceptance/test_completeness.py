"""The broker's own counters against the ledger: no loss is claimed under load, and a real one has its size."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import aio_pika
import pytest

from auditor.ledger.queries import Reader
from tests.acceptance.harness import Auditor, Row
from tests.acceptance.scene import Scene, open_scene
from tests.support.vhost import Vhost

RATE = 3000  # messages a second; the machine may reach less
SECONDS = 6.0  # the counters are collected each second, so it is several readings long


@pytest.fixture
def auditor(vhost: Vhost, tmp_path: Path) -> Iterator[Auditor]:
    """An auditor that looks at the counters again and again, and is slow with its canaries."""
    auditor = Auditor(vhost.broker, vhost.name, tmp_path)
    auditor.settings["audit"]["completeness_interval"] = 0.5
    auditor.settings["tap"] |= {"canary_interval": 2.0, "canary_timeout": 10.0}
    yield auditor
    auditor.close()


async def compared(auditor: Auditor, published: int) -> Row:
    """Wait until so many publishes were counted and no more are found to be missing; return the status."""
    found: list[tuple[int, Row]] = []

    def settled(reader: Reader) -> Row | None:
        row = auditor.status(reader)
        if row is None or row["counted"] is None or row["counted"] < published:
            return None
        if not found or row["counted_until_at"] != found[-1][0]:
            found.append((row["counted_until_at"], row))
        # a few readings later: what is missing is claimed after some in a row
        same = [(one["missing"], one["seen_least"], one["seen_most"]) for _, one in found[-4:]]
        return row if len(same) == 4 and len(set(same)) == 1 and row["seen_least"] == row["seen_most"] else None

    return await auditor.until(settled, "the counters are compared", bound=100)


async def begun(auditor: Auditor) -> None:
    """Wait for the first comparison."""
    await auditor.reading()
    await auditor.until(
        lambda reader: (row := auditor.status(reader)) and row["counted"] is not None, "it is compared", bound=60
    )


async def flood(scene: Scene, seconds: float) -> int:
    """Publish about RATE messages a second through two channels; return how many."""
    channels = [await scene.connection.channel(publisher_confirms=False) for _ in range(2)]
    began, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        for _ in range(max(0, min(500, int(elapsed * RATE) - sent))):
            exchange = channels[sent % 2].default_exchange
            await exchange.publish(aio_pika.Message(b"x" * 100), "nowhere", mandatory=False)
            sent += 1
        await asyncio.sleep(0.002)
    for channel in channels:
        await channel.close()
    return sent


@pytest.mark.timeout(300)
async def test_under_load_nothing_is_missing_and_in_the_pause_the_figures_meet(auditor: Auditor) -> None:
    auditor.start()
    await begun(auditor)
    async with open_scene(auditor, "load") as scene:
        sent = await flood(scene, SECONDS)
        row = await compared(auditor, sent)
    assert (row["counted"], row["seen_least"], row["seen_most"], row["missing"]) == (sent, sent, sent, 0)
    assert row["completeness_note"] is None
    assert [gap["reason"] for gap in await auditor.answer("coverage") if "reason" in gap] == []
    assert [gap["reason"] for gap in auditor.ask(lambda reader: reader.gaps())] == ["first_start"]
    shown = await auditor.shown("status")
    assert f"the broker counted {sent:,} publishes since" in shown
    assert f"the ledger has {sent:,}\n" in shown


@pytest.mark.timeout(300)
async def test_what_no_canary_noticed_is_a_gap_with_its_size(auditor: Auditor) -> None:
    auditor.start()
    await begun(auditor)
    switch = partial(auditor.broker.management.put, "vhosts", auditor.vhost)
    async with open_scene(auditor, "hole") as scene:
        await scene.publish("before")
        await auditor.seen()
        # between two canaries, however slow the machine is: while it is stopped, the auditor sends none
        auditor.signal(signal.SIGSTOP)
        began = time.time_ns() // 1000
        try:
            await asyncio.to_thread(partial(switch, json={"tracing": False}))
            for number in range(137):
                await scene.publish(f"unseen-{number}")
            await asyncio.to_thread(partial(switch, json={"tracing": True}))
        finally:
            auditor.signal(signal.SIGCONT)
        ended = time.time_ns() // 1000
        await scene.publish("after")
        row = await compared(auditor, 139)
    *gaps, first = auditor.ask(lambda reader: reader.gaps())
    assert first["reason"] == "first_start"
    # one, or several that touch: the counters may have been collected in the middle of it
    assert {gap["reason"] for gap in gaps} == {"incomplete"}
    assert sum(gap["missing"] for gap in gaps) == 137
    assert min(gap["from_at"] for gap in gaps) < began
    assert max(gap["to_at"] for gap in gaps) > ended
    assert (row["counted"], row["seen_least"], row["seen_most"], row["missing"]) == (139, 2, 2, 137)
    assert "137 are missing" in await auditor.shown("status")
    assert sum(line["missing"] for line in await auditor.answer("coverage")) == 137
