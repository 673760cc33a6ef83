"""What the broker counts, and what it lets whom see of it: what the comparison with the events rests on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from auditor.errors import BrokerError
from auditor.tap.management import Counters, Management
from tests.acceptance.harness import until
from tests.support.vhost import Vhost

CANARIES = "auditor.canary"
BOUND = 40.0  # seconds; the counters are collected every five


@pytest.fixture
def management(vhost: Vhost) -> Iterator[Management]:
    """The API as a user with the tag monitoring and no right in the vhost sees it."""
    add = partial(vhost.broker.add_user, "monitor", "secret", vhost=vhost.name)
    add(configure="^$", write="^$", read="^$", tags=["monitoring"])
    yield Management(url=vhost.broker.management_url, user="monitor", password="secret")
    vhost.broker.delete_user("monitor")


async def counted(management: Management, vhost: Vhost, published: int, canaries: int) -> Counters:
    """Wait until so much is counted; more never is."""
    async with asyncio.timeout(BOUND):
        while True:
            counters = await asyncio.to_thread(management.counters, vhost.name, CANARIES)
            if counters is not None:
                assert counters.published <= published
                assert counters.canaries <= canaries
                if (counters.published, counters.canaries) == (published, canaries):
                    return counters
            await asyncio.sleep(0.2)


async def publish(channel: AbstractChannel, exchange: str, count: int) -> None:
    for _ in range(count):
        to = await channel.get_exchange(exchange, ensure=False)
        await to.publish(aio_pika.Message(b""), "nowhere", mandatory=False)


@pytest.mark.timeout(240)
async def test_canaries_are_told_apart_and_transactions_count_when_they_are_committed(
    vhost: Vhost, management: Management
) -> None:
    async with await aio_pika.connect(vhost.url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        await channel.declare_exchange(CANARIES)
        assert await asyncio.to_thread(management.counters, vhost.name, CANARIES) is None
        await publish(channel, CANARIES, 3)
        await publish(channel, "amq.topic", 10)
        counters = await counted(management, vhost, 13, 3)
        assert len(counters.nodes) == 1
        assert not await asyncio.to_thread(management.uses_transactions, vhost.name)
        transactional = await connection.channel(publisher_confirms=False)
        transaction = transactional.transaction()
        await transaction.select()
        await publish(transactional, "amq.topic", 5)
        await transaction.rollback()
        await publish(transactional, "amq.topic", 7)
        await publish(channel, CANARIES, 1)
        # nothing of the transactional channel is counted yet
        await counted(management, vhost, 14, 4)
        await until(lambda: management.uses_transactions(vhost.name), bound=BOUND)
        await transaction.commit()
        await counted(management, vhost, 21, 4)


def test_a_user_that_sees_its_own_channels_only_is_told_so(vhost: Vhost) -> None:
    vhost.broker.add_user(
        "manager", "secret", vhost=vhost.name, configure="^$", write="^$", read="^$", tags=["management"]
    )
    try:
        api = Management(url=vhost.broker.management_url, user="manager", password="secret")
        with pytest.raises(BrokerError, match="set_user_tags manager monitoring"):
            api.uses_transactions(vhost.name)
    finally:
        vhost.broker.delete_user("manager")
