"""Much traffic: every publish and every delivery is in the ledger once, compared with what the applications counted.

AUDITOR_TEST_MESSAGES sets how many messages.
"""

from __future__ import annotations

import asyncio
import signal
from functools import partial

import pytest

from auditor.ledger.queries import Reader
from tests.acceptance.harness import Auditor
from tests.acceptance.traffic import Applications, check_counts
from tests.support.vhost import Vhost

MESSAGES = 20_000


@pytest.fixture
def counting(auditor: Auditor) -> Auditor:
    """An auditor that gives the consumers time: what is in question is the count."""
    auditor.settings["flows"][0]["deadline"] = 600
    return auditor


@pytest.mark.timeout(600)
async def test_every_publish_and_every_delivery_is_in_the_ledger_once(
    vhost: Vhost, counting: Auditor, test_environ: dict[str, str]
) -> None:
    counting.start()
    await counting.reading()
    applications = Applications(vhost.url, int(test_environ.get("AUDITOR_TEST_MESSAGES", MESSAGES)))
    await applications.run()
    await check_counts(counting, applications)


def has_seen(messages: int, auditor: Auditor, reader: Reader) -> bool:
    """Whether the process that runs now has seen so many publishes; those of earlier ones count."""
    status = auditor.status(reader)
    return status is not None and bool(status["published"] >= messages)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_so_it_is_when_the_auditor_is_ended_in_the_middle(
    vhost: Vhost, counting: Auditor, end: signal.Signals
) -> None:
    # small batches, so that the end comes upon many that are committed and not acknowledged, or neither
    counting.settings["tap"] |= {"batch_events": 50, "prefetch": 500}
    counting.start()
    await counting.reading()
    applications = Applications(vhost.url, 6_000)
    traffic = asyncio.create_task(applications.run())
    for number in range(3):
        seen = 1_000 * (number + 1)
        await counting.until(partial(has_seen, seen, counting), f"{seen} publishes")
        counting.signal(end)
        code = await asyncio.wait_for(asyncio.to_thread(counting.wait), 10)
        assert code == (0 if end == signal.SIGTERM else -end)
        counting.start()
    await traffic
    await counting.reading()
    await check_counts(counting, applications)


@pytest.mark.timeout(300)
async def test_so_it_is_when_its_connections_are_cut(vhost: Vhost, counting: Auditor) -> None:
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
    await check_counts(counting, applications)
