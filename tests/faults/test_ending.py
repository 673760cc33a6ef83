"""The auditor is asked to end at a bad moment: it does so in time and in order, and no event is lost by it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from auditor.demo.broker import PrivateBroker
from tests.acceptance.harness import Auditor, until
from tests.acceptance.traffic import Applications, check_counts
from tests.faults.conftest import FLOOR
from tests.faults.tally import Count, fault
from tests.support.disk import Disk
from tests.support.vhost import Vhost
from tests.support.wire import Wire

END = 10.0  # seconds in which the auditor has to end, whatever goes on

pytestmark = [pytest.mark.timeout(240), fault("auditor ended at a bad moment")]


async def ends(auditor: Auditor) -> None:
    """Ask the auditor to end, and check that it does so in time and in order."""
    auditor.signal(signal.SIGTERM)
    code = await asyncio.wait_for(asyncio.to_thread(auditor.wait), END)
    assert code == 0, auditor.log


@pytest.mark.parametrize("floor", [FLOOR, 1])
async def test_it_ends_in_time_while_the_disk_has_no_room(
    vhost: Vhost, disk: Disk, cramped: Auditor, count: Count, floor: int
) -> None:
    cramped.settings["ledger"]["min_free"] = floor
    cramped.start()
    await cramped.reading()
    disk.leave(floor - 1)
    applications = Applications(vhost.url, 10_000)
    await applications.run()
    await until(lambda: "A batch could not be written" in cramped.log)
    await ends(cramped)
    disk.make_room()
    cramped.start()
    await check_counts(cramped, applications, count)


@pytest.fixture
def through_wire(wire: Wire, auditor: Auditor) -> Auditor:
    """An auditor that reaches the broker by that line."""
    auditor.settings["broker"]["url"] = wire.url
    auditor.settings["flows"][0]["deadline"] = 600
    return auditor


async def test_it_ends_in_time_when_the_broker_has_gone_silent(
    vhost: Vhost, wire: Wire, through_wire: Auditor, count: Count
) -> None:
    through_wire.start()
    await through_wire.reading()
    applications = Applications(vhost.url, 6_000)
    traffic = asyncio.create_task(applications.run())
    await through_wire.until(lambda reader: reader.status()[0]["published"] > 2_000, "2,000 publishes")
    wire.black_hole()
    await traffic
    await ends(through_wire)
    wire.mend()
    through_wire.start()
    await check_counts(through_wire, applications, count)


async def test_it_ends_in_time_while_it_connects_to_a_silent_broker(wire: Wire, through_wire: Auditor) -> None:
    wire.black_hole()
    through_wire.start()
    await until(lambda: wire.connections > 0)
    await ends(through_wire)


async def test_it_ends_in_time_when_the_line_is_very_slow(
    vhost: Vhost, wire: Wire, through_wire: Auditor, count: Count
) -> None:
    through_wire.start()
    await through_wire.reading()
    wire.slow(2_000)
    applications = Applications(vhost.url, 6_000)
    await applications.run()
    await ends(through_wire)
    wire.mend()
    through_wire.start()
    await check_counts(through_wire, applications, count)


async def test_it_ends_in_time_while_the_management_does_not_answer(vhost: Vhost, auditor: Auditor) -> None:
    address = urlsplit(vhost.broker.management_url)
    assert address.hostname is not None
    assert address.port is not None
    async with Wire(address.hostname, address.port) as wire:
        wire.black_hole()
        auditor.settings["broker"]["management"]["url"] = f"http://127.0.0.1:{wire.port}"
        auditor.start()
        await until(lambda: wire.connections > 0)
        await ends(auditor)


async def test_it_ends_in_time_when_the_broker_hangs(node: PrivateBroker, tmp_path: Path, count: Count) -> None:
    await asyncio.to_thread(node.add_vhost, "hung")
    auditor = await asyncio.to_thread(Auditor, node, "hung", tmp_path)
    auditor.settings["flows"][0]["deadline"] = 600
    try:
        auditor.start()
        await auditor.reading()
        applications = Applications(node.url("hung"), 4_000)
        await applications.run()
        os.kill(node.pid, signal.SIGSTOP)
        try:
            await ends(auditor)
        finally:
            os.kill(node.pid, signal.SIGCONT)
        auditor.start()
        await check_counts(auditor, applications, count)
    finally:
        await asyncio.to_thread(auditor.close)
