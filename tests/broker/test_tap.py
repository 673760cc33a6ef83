"""The tap with a real broker: topology, reading, looking, the firehose's switch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from auditor.core.events import Published
from auditor.errors import BrokerError
from auditor.tap.canary import Canary, Sighting
from auditor.tap.connection import Endpoint, VhostRefused
from auditor.tap.consumer import Tap
from auditor.tap.control import Control
from auditor.tap.decode import decode
from auditor.tap.management import Management
from auditor.tap.topology import permissions, queue_arguments
from auditor.tap.wire import Content
from tests.support.vhost import Vhost

QUEUE, CANARIES = "auditor.trace", "auditor.canary"
MAX_BYTES = 1024 * 1024
BOUND = 30.0  # seconds for anything


@pytest.fixture
def endpoint(vhost: Vhost) -> Endpoint:
    """The way in for a user that may do the least."""
    configure, write, read = permissions(QUEUE, CANARIES)
    vhost.broker.add_user("tap", "secret", vhost=vhost.name, configure=configure, write=write, read=read)
    return Endpoint(host=vhost.broker.host, port=vhost.broker.port, vhost=vhost.name, user="tap", password="secret")


@pytest.fixture
def switch(vhost: Vhost) -> Management:
    """The switch of the firehose."""
    broker = vhost.broker
    return Management(url=broker.management_url, user=broker.user, password=broker.password)


@pytest.fixture
async def control(endpoint: Endpoint, switch: Management) -> AsyncIterator[Control]:
    """A control connection; the firehose is on, and the trace queue bound."""
    await asyncio.to_thread(switch.turn_firehose_on, endpoint.vhost)
    async with aclosing(await Control.open(endpoint, "test")) as control:
        assert (await control.declare(CANARIES, QUEUE, ["#"], MAX_BYTES)).queue
        yield control


@pytest.fixture
async def tap(control: Control, endpoint: Endpoint) -> AsyncIterator[Tap]:
    """A tap that reads."""
    tap = Tap(endpoint, QUEUE, prefetch=1000, max_buffered=MAX_BYTES)
    await tap.open()
    yield tap
    await tap.close()


async def publish(vhost: Vhost, *bodies: bytes) -> None:
    """Publish to no queue: the firehose shows it all the same."""
    async with await aio_pika.connect(vhost.url, timeout=10) as connection:
        channel = await connection.channel()
        for body in bodies:
            await channel.default_exchange.publish(aio_pika.Message(body), "nowhere", mandatory=False)


async def hold(message: AbstractIncomingMessage) -> None:
    """Keep a message without a word to the broker."""


async def read(tap: Tap, count: int) -> list[Content]:
    """Read so many contents."""
    contents: list[Content] = []
    async with asyncio.timeout(BOUND):
        while len(contents) < count:
            contents += await tap.batch(1000, 0.01, 1.0)
    assert len(contents) == count
    return contents


# connecting


async def test_a_refusal_says_what_is_refused(endpoint: Endpoint) -> None:
    cases: list[tuple[Endpoint, type[BrokerError], str]] = [
        (replace(endpoint, password="wrong"), BrokerError, "its password"),
        (replace(endpoint, user="nobody"), BrokerError, "its password"),
        (replace(endpoint, vhost="elsewhere"), VhostRefused, "refuses the virtual host"),
        (replace(endpoint, port=1), BrokerError, "broker.url"),
        (replace(endpoint, host="no-such-host.invalid"), BrokerError, "broker.url"),
    ]
    for wrong, error, words in cases:
        with pytest.raises(error, match=words) as caught:
            await Control.open(wrong, "test")
        assert "secret" not in str(caught.value)
        tap = Tap(wrong, QUEUE, prefetch=1, max_buffered=MAX_BYTES)
        with pytest.raises(error, match=words):
            await tap.open()


# topology


async def test_the_trace_queue_is_as_the_version_wants_it(control: Control, vhost: Vhost) -> None:
    api = vhost.broker.management
    queue = await asyncio.to_thread(api.get, "queues", vhost.name, QUEUE)
    arguments = queue_arguments(control.version, MAX_BYTES)
    # 4.x tells the arguments' numbers and words alike
    assert {name: queue["arguments"][name] for name in arguments} == arguments
    assert queue["durable"]
    assert control.version == vhost.broker.version


async def test_it_is_declared_once_and_left_alone_afterwards(control: Control) -> None:
    assert await control.declare(CANARIES, QUEUE, ["#"], MAX_BYTES) == (False, False)
    assert await control.declare(CANARIES, QUEUE, ["publish.#"], 2 * MAX_BYTES) == (False, False)
    await control.delete_queue(QUEUE)
    assert (await control.declare(CANARIES, QUEUE, ["#"], MAX_BYTES)).queue


@pytest.mark.parametrize("missing", ["configure", "write", "read"])
async def test_a_missing_permission_is_a_letter(endpoint: Endpoint, vhost: Vhost, missing: str) -> None:
    rights = dict(zip(("configure", "write", "read"), permissions(QUEUE, CANARIES), strict=True)) | {missing: "^$"}
    give = partial(vhost.broker.add_user, "tap", "secret", vhost=vhost.name, **rights)
    await asyncio.to_thread(give)
    async with aclosing(await Control.open(endpoint, "test")) as control:
        with pytest.raises(BrokerError, match="auditor check"):
            await control.declare(CANARIES, QUEUE, ["#"], MAX_BYTES)


# reading


async def test_it_reads_what_the_firehose_shows(tap: Tap, vhost: Vhost) -> None:
    await publish(vhost, b"first", b"", b"third")
    contents = await read(tap, 3)
    events = [decode(content) for content in contents]
    assert [(event.body, event.routed_queues) for event in events if isinstance(event, Published)] == [
        (b"first", ("nowhere",)),
        (b"", ("nowhere",)),
        (b"third", ("nowhere",)),
    ]
    assert await tap.batch(1000, 0.01, 0.01) == []


async def test_what_was_acknowledged_does_not_come_again_and_the_rest_does(
    tap: Tap, vhost: Vhost, endpoint: Endpoint
) -> None:
    await publish(vhost, b"first", b"second", b"third")
    contents = await read(tap, 3)
    await tap.acknowledge(contents[1])  # and with it the first
    await tap.close()
    again = Tap(endpoint, QUEUE, prefetch=1000, max_buffered=MAX_BYTES)
    await again.open()
    (content,) = await read(again, 1)
    assert (content.body, content.redelivered) == (b"third", True)
    await again.close()


async def test_it_holds_no_more_than_its_prefetch(control: Control, vhost: Vhost, endpoint: Endpoint) -> None:
    await publish(vhost, *(b"%d" % number for number in range(10)))
    tap = Tap(endpoint, QUEUE, prefetch=4, max_buffered=MAX_BYTES)
    await tap.open()
    contents = await read(tap, 4)
    assert await tap.batch(1000, 0.01, 0.5) == []
    await tap.acknowledge(contents[-1])
    assert [content.body for content in await read(tap, 4)] == [b"4", b"5", b"6", b"7"]
    await tap.close()


async def test_a_waiting_tap_can_be_woken(tap: Tap) -> None:
    waiting = asyncio.create_task(tap.batch(1000, 0.01, BOUND))
    await asyncio.sleep(0)
    tap.wake()
    assert await asyncio.wait_for(waiting, BOUND / 2) == []


async def test_a_deleted_trace_queue_ends_it(tap: Tap, control: Control) -> None:
    await control.delete_queue(QUEUE)
    with pytest.raises(BrokerError, match="the queue was deleted"):
        await read(tap, 1)


async def test_a_closed_connection_ends_it(tap: Tap, vhost: Vhost) -> None:
    api = vhost.broker.management

    def ours() -> list[str]:
        mine = [one for one in api.get("connections") if one.get("vhost") == vhost.name]
        return [one["name"] for one in mine if "tap" in one.get("client_properties", {}).get("connection_name", "")]

    (name,) = await wait_for(ours)
    await asyncio.to_thread(api.delete, "connections", name)
    with pytest.raises(BrokerError, match="Lost the trace queue"):
        await read(tap, 1)


async def wait_for(look: Callable[[], list[str]]) -> list[str]:
    """Wait until a list holds something."""
    for _ in range(int(BOUND / 0.2)):
        if found := await asyncio.to_thread(look):
            return found
        await asyncio.sleep(0.2)
    raise AssertionError("nothing was found")


async def test_a_canary_comes_back(tap: Tap, control: Control, endpoint: Endpoint) -> None:
    canary = Canary(exchange=CANARIES, auditor=QUEUE, user=endpoint.user)
    await control.send(canary, Sighting(7, 1_800_000_000_000_000))
    (content,) = await read(tap, 1)
    event = decode(content)
    assert isinstance(event, Published)
    assert canary.sight(event) == Sighting(7, 1_800_000_000_000_000)


# looking


async def test_a_look_at_a_queue_tells_what_is_there(control: Control, vhost: Vhost) -> None:
    inspector = control.inspector()
    async with await aio_pika.connect(vhost.url, timeout=10) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("orders eu", durable=True)
        await channel.declare_queue("private", exclusive=True)
        for _ in range(3):
            await channel.default_exchange.publish(aio_pika.Message(b""), queue.name)
        looks = [await inspector.inspect(name) for name in (queue.name, "private", "missing", queue.name)]
        assert [look[2:] for look in looks] == [(True, 3, 0), (None, None, None), (False, None, None), (True, 3, 0)]
        await channel.set_qos(prefetch_count=1)
        await queue.consume(hold)
        async with asyncio.timeout(BOUND):
            while (await inspector.inspect(queue.name))[2:] != (True, 2, 1):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("name", ["orders=eu", "größe (x) [1] `'\"", "q" * 255, "x" + "ö" * 120])
async def test_a_look_may_be_at_a_queue_of_any_name(control: Control, name: str) -> None:
    inspector = control.inspector()
    look = await inspector.inspect(name)
    # a refusal that quotes a long name in another alphabet cannot be read: it is not asked for
    assert look.exists is (None if len(name.encode()) > 200 and not name.isascii() else False)
    # the connection lives
    assert (await inspector.inspect(QUEUE)).exists is True


# the switch


async def test_turning_the_firehose_on_leaves_the_rest_of_the_vhost_as_it_is(switch: Management, vhost: Vhost) -> None:
    api = vhost.broker.management
    about = {"description": "orders, größe", "tags": "production,eu"}
    if vhost.broker.version.split(".")[0] >= "4":
        about["default_queue_type"] = "quorum"
    await asyncio.to_thread(partial(api.put, "vhosts", vhost.name, json=about))
    before = await asyncio.to_thread(api.get, "vhosts", vhost.name)
    assert not await asyncio.to_thread(switch.firehose_is_on, vhost.name)
    await asyncio.to_thread(switch.turn_firehose_on, vhost.name)
    assert await asyncio.to_thread(switch.firehose_is_on, vhost.name)
    after = await asyncio.to_thread(api.get, "vhosts", vhost.name)
    for name in ("description", "tags", "default_queue_type", "metadata"):
        assert after.get(name) == before.get(name)
    assert after["tracing"]


async def test_only_an_administrator_may_turn_it_on_and_others_may_look(switch: Management, vhost: Vhost) -> None:
    make = partial(vhost.broker.add_user, "looker", "secret", vhost=vhost.name, tags=["management"])
    await asyncio.to_thread(make)
    looker = replace(switch, user="looker", password="secret")
    assert await asyncio.to_thread(looker.firehose_is_on, vhost.name) is False
    with pytest.raises(BrokerError, match="administrator") as caught:
        await asyncio.to_thread(looker.turn_firehose_on, vhost.name)
    assert "secret" not in str(caught.value)
    await asyncio.to_thread(vhost.broker.delete_user, "looker")
