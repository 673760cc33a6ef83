"""Each way a message can go astray, and what the auditor says of it; then what looks like one and is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aio_pika
import aiormq
import pytest
from aio_pika.abc import AbstractIncomingMessage

from tests.acceptance.harness import Auditor
from tests.acceptance.scene import Scene, open_scene

Story = Callable[[Scene], Awaitable[None]]

STORIES: dict[str, Story] = {}


def story(tell: Story) -> Story:
    """Have a story told by the test at the end of this module."""
    STORIES[tell.__name__] = tell
    return tell


async def reject(message: AbstractIncomingMessage) -> None:
    await message.reject(requeue=False)


async def hold(message: AbstractIncomingMessage) -> None:
    """Keep a message without a word to the broker."""


async def pause(scene: Scene) -> None:
    """Let so much time pass that what is published next was certainly published later."""
    await scene.auditor.seen()


# astray


@story
async def a_message_that_no_queue_takes_is_unroutable(scene: Scene) -> None:
    exchange = await scene.exchange("orders", "direct")
    await scene.publish("m1", "nobody", exchange=exchange)
    # known at once: no deadline has to pass
    await scene.becomes("m1", "unroutable")
    assert await scene.claims() == [("m1", "", "unroutable", "no_queue")]


@story
async def a_stopped_consumer_leaves_messages_stuck_and_late_when_it_returns(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    consumer = await scene.consume(inbox)
    await scene.publish("m1")
    await scene.arrived(1)
    await consumer.close()
    await scene.publish("m2")
    await scene.publish("m3")
    assert await scene.claims() == [("m2", "inbox", "stuck", "no_consumer"), ("m3", "inbox", "stuck", "no_consumer")]
    await scene.consume(inbox)
    await scene.arrived(3)
    assert await scene.hops() == [
        ("m1", "inbox", "delivered", None),
        ("m2", "inbox", "late", None),
        ("m3", "inbox", "late", None),
    ]
    assert await scene.claims() == []


@story
async def a_consumer_that_hangs_leaves_the_messages_behind_waiting(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.consume(inbox, hold, prefetch=1)
    await scene.publish("m1")
    await scene.arrived(1)
    await scene.publish("m2")
    assert await scene.claims() == [("m2", "inbox", "stuck", "waiting")]


@story
async def an_expired_message_is_lost(scene: Scene) -> None:
    await scene.queue("inbox", x_message_ttl=100)
    await scene.publish("m1")
    assert await scene.claims() == [("m1", "inbox", "lost", "queue_empty")]


@story
async def a_message_with_an_expiration_of_its_own_is_lost_too(scene: Scene) -> None:
    await scene.queue("inbox")
    await scene.publish("m1", expiration=0.1)
    assert await scene.claims() == [("m1", "inbox", "lost", "queue_empty")]


@story
async def an_expired_message_is_dead_lettered_once_its_dead_letter_is_consumed(scene: Scene) -> None:
    dead_letters, arguments = await scene.dead_letter_queue("dead")
    await scene.queue("inbox", x_message_ttl=100, **arguments)
    await scene.consume(dead_letters)
    await scene.publish("m1")
    await scene.arrived(1)
    assert await scene.claims() == [("m1", "inbox", "dead_lettered", "expired")]
    assert ("m1", "dead", "delivered", None) in await scene.hops()


@story
async def what_a_full_queue_drops_is_lost(scene: Scene) -> None:
    inbox = await scene.queue("inbox", x_max_length=1)
    for id in ("m1", "m2", "m3"):
        await scene.publish(id)
    await scene.consume(inbox)
    assert await scene.arrived(1) == ["m3"]
    assert await scene.claims() == [("m1", "inbox", "lost", "queue_empty"), ("m2", "inbox", "lost", "queue_empty")]


@story
async def what_a_full_queue_drops_is_dead_lettered_where_there_is_a_place_for_it(scene: Scene) -> None:
    dead_letters, arguments = await scene.dead_letter_queue("dead")
    inbox = await scene.queue("inbox", x_max_length=1, **arguments)
    await scene.consume(dead_letters)
    await scene.publish("m1")
    await scene.publish("m2")
    await scene.arrived(1)
    await scene.consume(inbox)
    assert await scene.arrived(2) == ["m1", "m2"]
    assert await scene.claims() == [("m1", "inbox", "dead_lettered", "maxlen")]


@story
async def what_was_dropped_is_overtaken_by_later_ones_while_the_queue_is_not_empty(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.publish("m1")
    await inbox.purge()
    await pause(scene)
    await scene.consume(inbox, hold, prefetch=1)
    await scene.publish("m2")
    await scene.arrived(1)
    await scene.publish("m3")
    assert await scene.claims() == [("m1", "inbox", "lost", "overtaken"), ("m3", "inbox", "stuck", "waiting")]


@story
async def a_purged_message_is_lost(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.publish("m1")
    await inbox.purge()
    assert await scene.claims() == [("m1", "inbox", "lost", "queue_empty")]


@story
async def a_message_that_was_stuck_and_is_purged_is_lost(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.publish("m1")
    await scene.becomes("m1", "stuck")
    await inbox.purge()
    await scene.becomes("m1", "lost")
    assert await scene.claims() == [("m1", "inbox", "lost", "queue_empty")]


@story
async def a_rejected_message_is_dead_lettered(scene: Scene) -> None:
    dead_letters, arguments = await scene.dead_letter_queue("dead")
    inbox = await scene.queue("inbox", **arguments)
    await scene.consume(dead_letters)
    await scene.consume(inbox, reject)
    await scene.publish("m1")
    await scene.arrived(2)
    assert await scene.claims() == [("m1", "inbox", "dead_lettered", "rejected")]
    assert await scene.hops() == [("m1", "dead", "delivered", None), ("m1", "inbox", "dead_lettered", "rejected")]


@story
async def a_dead_letter_that_is_published_again_as_it_is_is_a_message_of_its_own(scene: Scene) -> None:
    dead_letters, arguments = await scene.dead_letter_queue("dead")
    inbox = await scene.queue("inbox", **arguments)

    async def refuse_at_first(message: AbstractIncomingMessage) -> None:
        await (message.ack() if "x-death" in message.headers else message.reject(requeue=False))

    async def publish_again(message: AbstractIncomingMessage) -> None:
        await scene.publish("m1", body=message.body, headers=message.headers)
        await message.ack()

    await scene.consume(inbox, refuse_at_first)
    await scene.consume(dead_letters, publish_again)
    await scene.publish("m1")
    await scene.arrived(3)
    assert await scene.hops() == [
        ("m1", "dead", "delivered", None),
        ("m1", "inbox", "dead_lettered", "rejected"),
        ("m1", "inbox", "delivered", None),
    ]


@story
async def a_message_delivered_too_often_is_dead_lettered(scene: Scene) -> None:
    dead_letters, arguments = await scene.dead_letter_queue("dead")
    inbox = await scene.queue("inbox", x_queue_type="quorum", x_delivery_limit=2, **arguments)
    await scene.consume(dead_letters)
    await scene.consume(inbox, lambda message: message.nack(requeue=True))
    await scene.publish("m1", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await scene.arrived(4)
    assert await scene.claims() == [("m1", "inbox", "dead_lettered", "delivery_limit")]
    assert [(row["queue"], row["attempts"]) for row in await scene.message("m1")] == [
        (inbox.name, 3),
        (dead_letters.name, 1),
    ]


@story
async def the_messages_of_a_deleted_queue_are_lost(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.publish("m1")
    await scene.publish("m2")
    await inbox.delete(if_empty=False)
    assert await scene.claims() == [("m1", "inbox", "lost", "queue_missing"), ("m2", "inbox", "lost", "queue_missing")]


@story
async def a_message_to_a_queue_that_never_was_is_lost(scene: Scene) -> None:
    # the default exchange names the queue in the publish event without looking whether it exists
    await scene.publish("m1", "nowhere")
    assert await scene.claims() == [("m1", "nowhere", "lost", "queue_missing")]


@story
async def only_the_queue_that_nobody_serves_is_named_in_a_fan_out(scene: Scene) -> None:
    exchange = await scene.exchange("news")
    queues = [await scene.queue(name) for name in ("first", "second", "third")]
    for queue in queues:
        await queue.bind(exchange)
    await scene.consume(queues[0])
    await scene.consume(queues[2])
    await scene.publish("m1", "any", exchange=exchange)
    await scene.arrived(2)
    assert await scene.hops() == [
        ("m1", "first", "delivered", None),
        ("m1", "second", "stuck", "no_consumer"),
        ("m1", "third", "delivered", None),
    ]
    assert await scene.claims() == [("m1", "second", "stuck", "no_consumer")]


@story
async def of_two_messages_with_one_id_the_lost_one_is_counted(scene: Scene) -> None:
    inbox = await scene.queue("inbox", x_max_length=1)
    await scene.publish("m1")
    await scene.publish("m1")
    await scene.consume(inbox)
    await scene.arrived(1)
    assert await scene.hops() == [("m1", "inbox", "delivered", None), ("m1", "inbox", "lost", "queue_empty")]


@story
async def of_equal_messages_without_an_id_the_lost_one_is_counted(scene: Scene) -> None:
    inbox = await scene.queue("inbox", x_max_length=2)
    for _ in range(3):
        await scene.publish(None)
    await scene.consume(inbox)
    await scene.arrived(2)
    assert await scene.claims() == [(None, "inbox", "lost", "queue_empty")]
    assert [hop[2] for hop in await scene.hops()] == ["delivered", "delivered", "lost"]


@story
async def what_an_outsider_took_is_not_delivered(scene: Scene) -> None:
    broker = scene.auditor.broker
    broker.add_user("crm-receiver", "secret", vhost=scene.auditor.vhost)
    receiver = broker.url(scene.auditor.vhost, "crm-receiver", "secret")
    inbox = await scene.queue("crm")
    await scene.publish("m1", "crm")
    taken = await inbox.get(timeout=10)  # as the administrator: somebody looked into the queue by hand
    assert taken is not None
    await taken.ack()
    async with await aio_pika.connect(receiver, timeout=10) as connection:
        queue = await (await connection.channel()).get_queue(inbox.name)
        await scene.publish("m2", "crm")
        message = await queue.get(timeout=10)
        assert message is not None
        await message.ack()
        assert await scene.claims() == [("m1", "crm", "lost", "queue_empty")]
    (row,) = await scene.message("m1")
    assert row["flow"] == "shop->crm"
    # the delivery is recorded all the same, with the name of whoever took it
    assert [delivery["consumer_user"] for delivery in row["deliveries"]] == [broker.user]
    broker.delete_user("crm-receiver")


# not astray


@story
async def a_message_that_was_delivered_several_times_was_delivered(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    times = 0

    async def third_time(message: AbstractIncomingMessage) -> None:
        nonlocal times
        times += 1
        await (message.ack() if times == 4 else message.nack(requeue=True))

    await scene.consume(inbox, third_time)
    await scene.publish("m1")
    await scene.arrived(4)
    assert await scene.hops() == [("m1", "inbox", "delivered", None)]
    (row,) = await scene.message("m1")
    assert row["attempts"] == 4
    assert [delivery["redelivered"] for delivery in row["deliveries"]] == [0, 1, 1, 1]


@story
async def a_rejected_message_without_a_dead_letter_queue_stays_delivered(scene: Scene) -> None:
    # the source shows no more: an acknowledgement and a rejection look alike
    inbox = await scene.queue("inbox")
    await scene.consume(inbox, reject)
    await scene.publish("m1")
    await scene.arrived(1)
    assert await scene.hops() == [("m1", "inbox", "delivered", None)]


@story
async def two_messages_with_one_id_are_two_messages(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.consume(inbox)
    await scene.publish("m1")
    await scene.publish("m1")
    await scene.arrived(2)
    assert await scene.hops() == [("m1", "inbox", "delivered", None)] * 2
    assert [row["attempts"] for row in await scene.message("m1")] == [1, 1]


@story
async def equal_messages_without_an_id_are_told_apart(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.consume(inbox)
    for _ in range(3):
        await scene.publish(None)
    await scene.arrived(3)
    assert await scene.hops() == [(None, "inbox", "delivered", None)] * 3


@story
async def an_alternate_exchange_is_a_way_like_any_other(scene: Scene) -> None:
    other = await scene.exchange("other")
    inbox = await scene.queue("inbox")
    await inbox.bind(other)
    exchange = await scene.exchange("orders", "direct", alternate_exchange=other.name)
    await scene.consume(inbox)
    await scene.publish("m1", "nobody", exchange=exchange)
    await scene.arrived(1)
    assert await scene.hops() == [("m1", "inbox", "delivered", None)]


@story
async def a_direct_reply_raises_nothing(scene: Scene) -> None:
    inbox = await scene.queue("inbox")

    async def reply(message: AbstractIncomingMessage) -> None:
        assert message.reply_to is not None
        await scene.channel.default_exchange.publish(
            aio_pika.Message(b"yes", message_id=f"{scene.prefix}reply"), message.reply_to, mandatory=False
        )
        await message.ack()

    await scene.consume(inbox, reply)
    # the pseudo-queue must not be declared, so below aio-pika: request and answer over one channel
    channel = await scene.channel.get_underlay_channel()
    answers: asyncio.Queue[aiormq.abc.DeliveredMessage] = asyncio.Queue()
    await channel.basic_consume("amq.rabbitmq.reply-to", answers.put, no_ack=True)
    await scene.publish("m1", reply_to="amq.rabbitmq.reply-to")
    answer = await asyncio.wait_for(answers.get(), 30)
    assert answer.body == b"yes"
    assert await scene.claims() == []
    assert ("m1", "inbox", "delivered", None) in await scene.hops()


@story
async def a_message_that_is_fetched_after_its_deadline_is_late(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.publish("m1")
    await scene.becomes("m1", "stuck")
    began = time.time()
    message = await inbox.get(timeout=10)
    assert message is not None
    await message.ack()
    await scene.becomes("m1", "late")
    (row,) = await scene.message("m1")
    assert row["wait_seconds"] > row["deadline_seconds"]
    assert row["deliveries"][0]["received_at"] >= began * 1e6 - 1_000_000
    assert await scene.claims() == []


@pytest.fixture(scope="module")
def endings(shared_auditor: Auditor, request: pytest.FixtureRequest) -> dict[str, BaseException | None]:
    """How each chosen story ended. They are told side by side: nearly all that they do is to wait for a deadline."""
    chosen = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]
    return dict(zip(chosen, asyncio.run(tell_all(shared_auditor, chosen)), strict=True))


async def tell_all(auditor: Auditor, names: list[str]) -> list[BaseException | None]:
    await auditor.reading()
    return await asyncio.gather(*(tell(auditor, name) for name in names), return_exceptions=True)


async def tell(auditor: Auditor, name: str) -> None:
    async with asyncio.timeout(120), open_scene(auditor, name) as scene:
        await STORIES[name](scene)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", STORIES)
def test_the_auditor_tells_the_story_as_it_was(name: str, endings: dict[str, BaseException | None]) -> None:
    error = endings[name]
    if error is not None:
        raise error
