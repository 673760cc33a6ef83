"""The fixtures that every other broker test stands on."""

from __future__ import annotations

import time
from collections.abc import Iterator

import aio_pika
import aiormq.exceptions
import pytest
from blockbuster import BlockingError

from auditor.demo.server import Broker
from tests.support.vhost import Vhost


def test_the_broker_says_which_version_it_is(broker: Broker) -> None:
    assert int(broker.version.split(".")[0]) >= 3
    assert broker.management.get("overview")["rabbitmq_version"] == broker.version


async def test_a_vhost_is_fresh_and_its_administrator_may_do_everything(vhost: Vhost) -> None:
    async with await aio_pika.connect(vhost.url, timeout=10) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("inbox")
        assert queue.declaration_result.message_count == 0
        await channel.default_exchange.publish(aio_pika.Message(b"hello"), "inbox")
        message = await queue.get(timeout=10)
        assert message is not None
        await message.ack()
        assert message.body == b"hello"


def test_a_vhost_is_gone_after_its_test(vhost: Vhost) -> None:
    names = {entry["name"] for entry in vhost.broker.management.get("vhosts")}
    assert vhost.name in names
    vhost.broker.delete_vhost(vhost.name)
    assert names - {vhost.name} == {entry["name"] for entry in vhost.broker.management.get("vhosts")}
    vhost.broker.delete_vhost(vhost.name)  # the fixture will do it once more


@pytest.fixture
def reader(vhost: Vhost) -> Iterator[str]:
    """The URL of a user that may only read one queue."""
    vhost.broker.add_user("reader", "p:/@ss", vhost=vhost.name, configure="^$", write="^$", read="^inbox$")
    yield vhost.broker.url(vhost.name, "reader", "p:/@ss")
    vhost.broker.delete_user("reader")


async def test_a_user_may_do_what_was_permitted_and_no_more(reader: str) -> None:
    async with await aio_pika.connect(reader, timeout=10) as connection:
        channel = await connection.channel()
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await channel.declare_queue("inbox")
        channel = await connection.channel()
        with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity):  # it may read it; it is only not there
            await channel.declare_queue("inbox", passive=True)


async def test_blocking_the_event_loop_fails_a_test() -> None:
    with pytest.raises(BlockingError):
        time.sleep(0.01)  # noqa: ASYNC251
