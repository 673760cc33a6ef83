"""Much traffic: every publish and every delivery is in the ledger once, compared with what the applications counted.

AUDITOR_TEST_MESSAGES sets how many messages.
"""

from __future__ import annotations

import asyncio
import random
import signal
from functools import partial

import pytest

from auditor.ledger.queries import Reader
from tests.acceptance.harness import Auditor
from tests.acceptance.traffic import Applications, check_counts
from tests.faults.steady import ENOUGH
from tests.faults.tally import Count, fault
from tests.support.vhost import Vhost

MESSAGES = 20_000
ENDS, ENDS_LONG = 5, {signal.SIGTERM: 20, signal.SIGKILL: 100}  # how often it is ended


@pytest.fixture
def counting(auditor: Auditor) -> Auditor:
    """An auditor that gives the consumers time: what is in question is the count."""
    auditor.settings["flows"][0]["deadline"] = 600
    return auditor


@fault("much traffic")
@pytest.mark.timeout(600)
async def test_every_publish_and_every_delivery_is_in_the_ledger_once(
    vhost: Vhost, counting: Auditor, count: Count, test_environ: dict[str, str]
) -> None:
    counting.start()
    await counting.reading()
    applications = Applications(vhost.url, int(test_environ.get("AUDITOR_TEST_MESSAGES", MESSAGES)))
    await applications.run()
    await check_counts(counting, applications, count)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(signal.SIGTERM, marks=fault("auditor stopped in the middle"), id="SIGTERM"),
        pytest.param(signal.SIGKILL, marks=fault("auditor killed"), id="SIGKILL"),
    ],
)
async def test_so_it_is_when_the_auditor_is_ended_in_the_middle(
    vhost: Vhost, counting: Auditor, count: Count, long: bool, end: signal.Signals
) -> None:
    # small batches, so that the end comes upon many that are committed and not acknowledged, or neither
    counting.settings["tap"] |= {"batch_events": 50, "prefetch": 500}
    counting.start()
    await counting.reading()
    applications = Applications(vhost.url, ENOUGH, rate=500)
    traffic = asyncio.create_task(applications.run())
    instant = random.Random(vhost.name)
    for _ in range(ENDS_LONG[end] if long else ENDS):
        # from the middle of its start on
        await asyncio.sleep(instant.uniform(0.3, 2.5))
        counting.signal(end)
        code = await asyncio.wait_for(asyncio.to_thread(counting.wait), 10)
        # ended before it had asked to be told, it dies of the signal as any program does
        assert code in ({0, -end} if end == signal.SIGTERM else {-end})
        assert not traffic.done()
        counting.start()
    applications.stop()
    await traffic
    await counting.reading()
    await check_counts(counting, applications, count)


def has_seen(messages: int, auditor: Auditor, reader: Reader) -> bool:
    """Whether the process that runs now has seen so many publishes; those of earlier ones count."""
    status = auditor.status(reader)
    return status is not None and bool(status["published"] >= messages)


@fault("connections cut under load")
@pytest.mark.timeout(300)
async def test_so_it_is_when_its_connections_are_cut(vhost: Vhost, counting: Auditor, count: Count) -> None:
    counting.settings["tap"] |= {"batch_events": 50, "prefetch": 2000}
    counting.start()
    await counting.reading()
    names = await counting.connections()
    applications = Applications(vhost.url, 10_000)
    traffic = asyncio.create_task(applications.run())
    for number, name in enumerate(names):
        seen = 2_000 * (number + 1)
        await counting.until(partial(has_seen, seen, counting), f"{seen} publishes")
        await asyncio.to_thread(vhost.broker.management.delete, "connections", name)
    await traffic
    await counting.reading()
    await check_counts(counting, applications, count)
