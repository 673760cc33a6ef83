"""Each way a message can go astray, and what the auditor says of it; then what looks like one and is none."""

from __future__ import annotations

import asyncio
import time

import aio_pika
import aiormq
import pytest
from aio_pika.abc import AbstractIncomingMessage, AbstractQueue

from tests.acceptance.harness import Auditor
from tests.acceptance.scene import Scene, open_scene
from tests.faults.counting import Tally
from tests.faults.stories import Endings, Stories, chosen, side_by_side

ROUNDS = 5  # how often each story is told in a long run
BOUND = 300.0  # seconds for all stories, which are told at once; of CPU they take twenty

story = Stories[[Scene]]()


async def reject(message: AbstractIncomingMessage) -> None:
    await message.reject(requeue=False)


async def hold(message: AbstractIncomingMessage) -> None:
    """Keep a message without a word to the broker."""


def to(queue: AbstractQueue) -> dict[str, str]:
    """The arguments of a queue whose dead letters go to another."""
    return {"x_dead_letter_exchange": "", "x_dead_letter_routing_key": queue.name}


async def pause(scene: Scene) -> None:
    """Let so much time pass that what is published next was certainly published later."""
    await scene.auditor.seen()


# astray


@story("unroutable")
async def a_message_that_no_queue_takes_is_unroutable(scene: Scene) -> None:
    exchange = await scene.exchange("orders", "direct")
    await scene.publish("m1", "nobody", exchange=exchange)
    # known at once: no deadline has to pass
    await scene.becomes("m1", "unroutable")
    await scene.claimed(("m1", "", "unroutable", "no_queue"))


@story("consumer stopped")
async def a_stopped_consumer_leaves_messages_stuck_and_late_when_it_returns(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    consumer = await scene.consume(inbox)
    await scene.publish("m1")
    await scene.arrived(1)
    await consumer.close()
    await scene.publish("m2")
    await scene.publish("m3")
    await scene.claimed(("m2", "inbox", "stuck", "no_consumer"), ("m3", "inbox", "stuck", "no_consumer"))
    await scene.consume(inbox)
    await scene.arrived(3)
    assert await scene.hops() == [
        ("m1", "inbox", "delivered", None),
        ("m2", "inbox", "late", None),
        ("m3", "inbox", "late", None),
    ]
    await scene.claimed()


@story("consumer hangs")
async def a_consumer_that_hangs_leaves_the_messages_behind_waiting(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.consume(inbox, hold, prefetch=1)
    await scene.publish("m1")
    await scene.arrived(1)
    await scene.publish("m2")
    await scene.claimed(("m2", "inbox", "stuck", "waiting"))


@story("message expired")
async def an_expired_message_is_lost(scene: Scene) -> None:
    await scene.queue("inbox", x_message_ttl=100)
    await scene.publish("m1")
    await scene.claimed(("m1", "inbox", "lost", "queue_empty"))


@story("message expired")
async def a_message_with_an_expiration_of_its_own_is_lost_too(scene: Scene) -> None:
    await scene.queue("inbox")
    await scene.publish("m1", expiration=0.1)
    await scene.claimed(("m1", "inbox", "lost", "queue_empty"))


@story("message expired")
async def an_expired_message_is_dead_lettered_once_its_dead_letter_is_consumed(scene: Scene) -> None:
    dead_letters, arguments = await scene.dead_letter_queue("dead")
    await scene.queue("inbox", x_message_ttl=100, **arguments)
    await scene.consume(dead_letters)
    await scene.publish("m1")
    await scene.arrived(1)
    await scene.claimed(("m1", "inbox", "dead_lettered", "expired"))
    assert ("m1", "dead", "delivered", None) in await scene.hops()


@story("queue full, oldest dropped")
async def what_a_full_queue_drops_is_lost(scene: Scene) -> None:
    inbox = await scene.queue("inbox", x_max_length=1)
    for id in ("m1", "m2", "m3"):
        await scene.publish(id)
    await scene.consume(inbox)
    assert await scene.arrived(1) == ["m3"]
    await scene.claimed(("m1", "inbox", "lost", "queue_empty"), ("m2", "inbox", "lost", "queue_empty"))


@story("queue full, oldest dropped")
async def what_a_full_queue_drops_is_dead_lettered_where_there_is_a_place_for_it(scene: Scene) -> None:
    dead_letters, arguments = await scene.dead_letter_queue("dead")
    inbox = await scene.queue("inbox", x_max_length=1, **arguments)
    await scene.consume(dead_letters)
    await scene.publish("m1")
    await scene.publish("m2")
    await scene.arrived(1)
    await scene.consume(inbox)
    assert await scene.arrived(2) == ["m1", "m2"]
    await scene.claimed(("m1", "inbox", "dead_lettered", "maxlen"))


@story("queue purged")
async def what_was_dropped_is_overtaken_by_later_ones_while_the_queue_is_not_empty(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.publish("m1")
    await inbox.purge()
    await pause(scene)
    await scene.consume(inbox, hold, prefetch=1)
    await scene.publish("m2")
    await scene.arrived(1)
    await scene.publish("m3")
    await scene.claimed(("m1", "inbox", "lost", "overtaken"), ("m3", "inbox", "stuck", "waiting"))


@story("queue purged")
async def a_purged_message_is_lost(scene: Scene) -> None:
    await scene.lose("m1")
    await scene.claimed(("m1", "inbox", "lost", "queue_empty"))


@story("queue purged")
async def a_message_that_was_stuck_and_is_purged_is_lost(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.publish("m1")
    await scene.claimed(("m1", "inbox", "stuck", "no_consumer"))
    await inbox.purge()
    await scene.becomes("m1", "lost")
    await scene.claimed(("m1", "inbox", "lost", "queue_empty"))


@story("rejected")
async def a_rejected_message_is_dead_lettered(scene: Scene) -> None:
    dead_letters, arguments = await scene.dead_letter_queue("dead")
    inbox = await scene.queue("inbox", **arguments)
    await scene.consume(dead_letters)
    await scene.consume(inbox, reject)
    await scene.publish("m1")
    await scene.arrived(2)
    await scene.claimed(("m1", "inbox", "dead_lettered", "rejected"))
    assert await scene.hops() == [("m1", "dead", "delivered", None), ("m1", "inbox", "dead_lettered", "rejected")]


@story("rejected")
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
    await scene.claimed(("m1", "inbox", "dead_lettered", "rejected"))
    assert await scene.hops() == [
        ("m1", "dead", "delivered", None),
        ("m1", "inbox", "dead_lettered", "rejected"),
        ("m1", "inbox", "delivered", None),
    ]


@story("delivered too often")
async def a_message_delivered_too_often_is_dead_lettered(scene: Scene) -> None:
    dead_letters, arguments = await scene.dead_letter_queue("dead")
    inbox = await scene.queue("inbox", x_queue_type="quorum", x_delivery_limit=2, **arguments)
    await scene.consume(dead_letters)
    await scene.consume(inbox, lambda message: message.nack(requeue=True))
    await scene.publish("m1", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await scene.arrived(4)
    await scene.claimed(("m1", "inbox", "dead_lettered", "delivery_limit"))
    assert [(row["queue"], row["attempts"]) for row in await scene.message("m1")] == [
        (inbox.name, 3),
        (dead_letters.name, 1),
    ]


@story("queue deleted")
async def the_messages_of_a_deleted_queue_are_lost(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.publish("m1")
    await scene.publish("m2")
    await inbox.delete(if_empty=False)
    await scene.claimed(("m1", "inbox", "lost", "queue_missing"), ("m2", "inbox", "lost", "queue_missing"))


@story("no such queue")
async def a_message_to_a_queue_that_never_was_is_lost(scene: Scene) -> None:
    # the default exchange names the queue in the publish event without looking whether it exists
    await scene.publish("m1", "nowhere")
    await scene.claimed(("m1", "nowhere", "lost", "queue_missing"))


@story("fan-out, one queue not served")
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
    await scene.claimed(("m1", "second", "stuck", "no_consumer"))


@story("message id reused")
async def of_two_messages_with_one_id_the_lost_one_is_counted(scene: Scene) -> None:
    inbox = await scene.queue("inbox", x_max_length=1)
    await scene.publish("m1")
    await scene.publish("m1")
    await scene.consume(inbox)
    await scene.arrived(1)
    await scene.claimed(("m1", "inbox", "lost", "queue_empty"))
    assert await scene.hops() == [("m1", "inbox", "delivered", None), ("m1", "inbox", "lost", "queue_empty")]


@story("no message id, equal bodies")
async def of_equal_messages_without_an_id_the_lost_one_is_counted(scene: Scene) -> None:
    inbox = await scene.queue("inbox", x_max_length=2)
    for _ in range(3):
        await scene.publish(None)
    await scene.consume(inbox)
    await scene.arrived(2)
    await scene.claimed((None, "inbox", "lost", "queue_empty"))
    assert [hop[2] for hop in await scene.hops()] == ["delivered", "delivered", "lost"]


@story("taken by an outsider")
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
        await scene.claimed(("m1", "crm", "lost", "queue_empty"))
    (row,) = await scene.message("m1")
    assert row["flow"] == "shop->crm"
    # the delivery is recorded all the same, with the name of whoever took it
    assert [delivery["consumer_user"] for delivery in row["deliveries"]] == [broker.user]
    broker.delete_user("crm-receiver")


@story("no consumer")
async def what_nobody_ever_consumes_is_stuck(scene: Scene) -> None:
    await scene.queue("inbox")
    for id in ("m1", "m2", "m3"):
        await scene.publish(id)
    stuck = [(id, "inbox", "stuck", "no_consumer") for id in ("m1", "m2", "m3")]
    await scene.claimed(*stuck)
    assert await scene.hops() == stuck


@story("queue full, publish refused")
async def what_a_full_queue_refuses_is_lost(scene: Scene) -> None:
    # a refused publish is traced like one that was taken; only the publisher is told
    inbox = await scene.queue("inbox", x_max_length=1, x_overflow="reject-publish")
    await scene.publish("m1")
    with pytest.raises(aiormq.exceptions.DeliveryError):
        await scene.publish("m2")
    await scene.consume(inbox)
    await scene.arrived(1)
    await scene.claimed(("m2", "inbox", "lost", "queue_empty"))


@story("queue full, publish refused")
async def what_a_full_queue_refuses_is_stuck_until_the_queue_is_worked_off(scene: Scene) -> None:
    inbox = await scene.queue("inbox", x_max_length=1, x_overflow="reject-publish")
    await scene.publish("m1")
    with pytest.raises(aiormq.exceptions.DeliveryError):
        await scene.publish("m2")
    await scene.claimed(("m1", "inbox", "stuck", "no_consumer"), ("m2", "inbox", "stuck", "no_consumer"))
    await scene.consume(inbox)
    await scene.arrived(1)
    await scene.becomes("m2", "lost")
    await scene.claimed(("m2", "inbox", "lost", "queue_empty"))
    assert ("m1", "inbox", "late", None) in await scene.hops()


@story("delivered too often")
async def what_is_delivered_too_often_without_a_dead_letter_queue_stays_delivered(scene: Scene) -> None:
    inbox = await scene.queue("inbox", x_queue_type="quorum", x_delivery_limit=2)
    await scene.consume(inbox, lambda message: message.nack(requeue=True))
    await scene.publish("m1", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await scene.arrived(3)
    await scene.claimed()
    assert await scene.hops() == [("m1", "inbox", "delivered", None)]


@story("unroutable")
async def a_topic_that_nobody_is_bound_for_is_unroutable(scene: Scene) -> None:
    exchange = await scene.exchange("orders", "topic")
    inbox = await scene.queue("inbox")
    await inbox.bind(exchange, f"{scene.prefix}order.approved.#")
    await scene.consume(inbox)
    await scene.publish("m1", "order.approved.eu", exchange=exchange)
    await scene.publish("m2", "order.aproved.eu", exchange=exchange)
    await scene.arrived(1)
    await scene.claimed(("m2", "", "unroutable", "no_queue"))
    assert ("m1", "inbox", "delivered", None) in await scene.hops()


@story("unroutable")
async def what_the_alternate_exchange_has_no_queue_for_either_is_unroutable(scene: Scene) -> None:
    other = await scene.exchange("other")
    exchange = await scene.exchange("orders", "direct", alternate_exchange=other.name)
    await scene.publish("m1", "nobody", exchange=exchange)
    await scene.claimed(("m1", "", "unroutable", "no_queue"))


@story("redelivered many times")
async def among_messages_that_are_redelivered_again_and_again_the_lost_one_is_found(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.publish("lost", expiration=0.1)
    await scene.becomes("lost", "lost")
    times: dict[str, int] = {}

    async def last_time(message: AbstractIncomingMessage) -> None:
        assert message.message_id is not None
        times[message.message_id] = times.get(message.message_id, 0) + 1
        await (message.ack() if times[message.message_id] == 30 else message.nack(requeue=True))

    await scene.consume(inbox, last_time)
    await scene.publish("m1")
    await scene.publish("m2")
    await scene.arrived(60)
    await scene.claimed(("lost", "inbox", "lost", "queue_empty"))
    assert [(await scene.message(id))[0]["attempts"] for id in ("m1", "m2")] == [30, 30]


@story("priority queue")
async def what_more_urgent_messages_overtook_is_not_lost(scene: Scene) -> None:
    inbox = await scene.queue("inbox", x_max_priority=9)
    await scene.publish("plain", priority=0)
    await pause(scene)
    await scene.publish("urgent", priority=9)
    # one at a time, and the first is held: the plain one stays in the queue, behind one that came later
    consumer = await scene.consume(inbox, hold, prefetch=1)
    assert await scene.arrived(1) == ["urgent"]
    await scene.claimed(("plain", "inbox", "stuck", "waiting"))
    await consumer.close()
    await scene.consume(inbox)
    await scene.arrived(3)
    await scene.claimed()
    assert await scene.hops() == [("plain", "inbox", "late", None), ("urgent", "inbox", "delivered", None)]


@story("CC and BCC")
async def each_queue_that_a_copy_went_to_is_held_to_it(scene: Scene) -> None:
    queues = {name: await scene.queue(name) for name in ("inbox", "copy", "blind")}
    for served in ("inbox", "copy"):
        await scene.consume(queues[served])
    headers = {"CC": [queues["copy"].name], "BCC": [queues["blind"].name]}
    await scene.publish("m1", headers=headers)
    await scene.arrived(2)
    await scene.claimed(("m1", "blind", "stuck", "no_consumer"))
    assert await scene.hops() == [
        ("m1", "blind", "stuck", "no_consumer"),
        ("m1", "copy", "delivered", None),
        ("m1", "inbox", "delivered", None),
    ]


# not astray


@story("queue deleted")
async def a_queue_that_is_deleted_empty_costs_nothing(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    consumer = await scene.consume(inbox)
    await scene.publish("m1")
    await scene.arrived(1)
    await consumer.close()
    await inbox.delete()
    await scene.claimed()
    assert await scene.hops() == [("m1", "inbox", "delivered", None)]


@story("prefetched, not acknowledged")
async def what_a_consumer_has_fetched_ahead_was_delivered(scene: Scene) -> None:
    # the source shows no acknowledgements: to be given is to be delivered, however long it is held
    inbox = await scene.queue("inbox")
    consumer = await scene.consume(inbox, hold, prefetch=100)
    ids = [f"m{number:02}" for number in range(50)]
    for id in ids:
        await scene.publish(id)
    await scene.arrived(50)
    await scene.claimed()
    assert await scene.hops() == [(id, "inbox", "delivered", None) for id in ids]
    # given back when its channel goes, and given to another
    await consumer.close()
    await scene.consume(inbox)
    await scene.arrived(100)
    await scene.claimed()


@story("stream read several times")
async def a_stream_may_be_read_as_often_as_one_likes(scene: Scene) -> None:
    stream = await scene.queue("inbox", x_queue_type="stream")
    for id in ("m1", "m2", "m3"):
        await scene.publish(id)
    for readers in range(1, 4):
        await scene.consume(stream, prefetch=10, arguments={"x-stream-offset": "first"})
        await scene.arrived(3 * readers)
    await scene.claimed()
    assert await scene.hops() == [(id, "inbox", "delivered", None) for id in ("m1", "m2", "m3")]
    assert [row["attempts"] for row in await scene.message("m2")] == [3]


@story("held back on purpose")
async def what_expires_in_a_delay_queue_to_be_delivered_is_delivered(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    # for longer than the deadline of a queue that is none
    await scene.queue("delay", x_message_ttl=2500, **to(inbox))
    await scene.consume(inbox)
    await scene.publish("m1", "delay")
    await scene.arrived(1)
    await scene.claimed()
    assert await scene.hops() == [("m1", "inbox", "delivered", None)]


@story("held back on purpose")
async def what_is_rejected_to_be_tried_again_later_is_delivered_twice(scene: Scene) -> None:
    inbox = await scene.queue("inbox", x_dead_letter_exchange="", x_dead_letter_routing_key=f"{scene.prefix}delay")
    await scene.queue("delay", x_message_ttl=300, **to(inbox))

    async def refuse_at_first(message: AbstractIncomingMessage) -> None:
        await (message.ack() if "x-death" in message.headers else message.reject(requeue=False))

    await scene.consume(inbox, refuse_at_first)
    await scene.publish("m1")
    await scene.arrived(2)
    await scene.claimed()
    assert await scene.hops() == [("m1", "inbox", "delivered", None)]
    assert [row["attempts"] for row in await scene.message("m1")] == [2]


@story("held back on purpose")
async def what_does_not_come_out_of_a_delay_queue_is_unknown_until_it_does(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.queue("delay", x_message_ttl=300, **to(inbox))
    await scene.publish("m1", "delay")
    await scene.becomes("m1", "unknown")
    await scene.claimed()
    assert await scene.hops() == [("m1", "delay", "unknown", "delayed")]
    await scene.consume(inbox)
    await scene.becomes("m1", "late")
    await scene.claimed()
    assert await scene.hops() == [("m1", "inbox", "late", None)]


@story("held back on purpose")
async def a_delayed_message_that_is_never_seen_again_is_unknown(scene: Scene) -> None:
    # an exchange that delays shows no queue at the publish; one without queues shows the same
    exchange = await scene.exchange("later")
    await scene.publish("m1", "any", exchange=exchange, headers={"x-delay": 500})
    await scene.becomes("m1", "unknown")
    await scene.claimed()
    assert await scene.hops() == [("m1", "", "unknown", "delayed")]


@story("rolled back")
async def what_is_rolled_back_is_unknown(scene: Scene) -> None:
    await scene.consume(await scene.queue("tx"))
    await scene.transact("m1", "tx", commit=False)
    await scene.transact("m2", "tx", commit=True)
    assert await scene.arrived(1) == ["m2"]
    await scene.becomes("m1", "unknown")
    await scene.claimed()
    assert await scene.hops() == [("m1", "tx", "unknown", "transaction"), ("m2", "tx", "delivered", None)]


@story("rolled back")
async def what_is_committed_and_not_consumed_is_stuck(scene: Scene) -> None:
    await scene.queue("tx")
    await scene.transact("m1", "tx", commit=True)
    await scene.transact("m2", "tx", commit=True)
    await scene.claimed(("m1", "tx", "stuck", "no_consumer"), ("m2", "tx", "stuck", "no_consumer"))


@story("requeued")
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
    await scene.claimed()
    assert await scene.hops() == [("m1", "inbox", "delivered", None)]
    (row,) = await scene.message("m1")
    assert row["attempts"] == 4
    assert [delivery["redelivered"] for delivery in row["deliveries"]] == [0, 1, 1, 1]


@story("rejected")
async def a_rejected_message_without_a_dead_letter_queue_stays_delivered(scene: Scene) -> None:
    # the source shows no more: an acknowledgement and a rejection look alike
    inbox = await scene.queue("inbox")
    await scene.consume(inbox, reject)
    await scene.publish("m1")
    await scene.arrived(1)
    await scene.claimed()
    assert await scene.hops() == [("m1", "inbox", "delivered", None)]


@story("message id reused")
async def two_messages_with_one_id_are_two_messages(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.consume(inbox)
    await scene.publish("m1")
    await scene.publish("m1")
    await scene.arrived(2)
    await scene.claimed()
    assert await scene.hops() == [("m1", "inbox", "delivered", None)] * 2
    assert [row["attempts"] for row in await scene.message("m1")] == [1, 1]


@story("no message id, equal bodies")
async def equal_messages_without_an_id_are_told_apart(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.consume(inbox)
    for _ in range(3):
        await scene.publish(None)
    await scene.arrived(3)
    await scene.claimed()
    assert await scene.hops() == [(None, "inbox", "delivered", None)] * 3


@story("unroutable")
async def an_alternate_exchange_is_a_way_like_any_other(scene: Scene) -> None:
    other = await scene.exchange("other")
    inbox = await scene.queue("inbox")
    await inbox.bind(other)
    exchange = await scene.exchange("orders", "direct", alternate_exchange=other.name)
    await scene.consume(inbox)
    await scene.publish("m1", "nobody", exchange=exchange)
    await scene.arrived(1)
    await scene.claimed()
    assert await scene.hops() == [("m1", "inbox", "delivered", None)]


@story("direct reply-to")
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
    await scene.claimed()
    assert ("m1", "inbox", "delivered", None) in await scene.hops()


@story("delivered late")
async def a_message_that_is_fetched_after_its_deadline_is_late(scene: Scene) -> None:
    inbox = await scene.queue("inbox")
    await scene.publish("m1")
    await scene.claimed(("m1", "inbox", "stuck", "no_consumer"))
    began = time.time()
    message = await inbox.get(timeout=10)
    assert message is not None
    await message.ack()
    await scene.becomes("m1", "late")
    (row,) = await scene.message("m1")
    assert row["wait_seconds"] > row["deadline_seconds"]
    assert row["deliveries"][0]["received_at"] >= began * 1e6 - 1_000_000
    await scene.claimed()


@pytest.fixture(scope="module")
def endings(shared_auditor: Auditor, long: bool, tally: Tally, request: pytest.FixtureRequest) -> Endings:
    """How each chosen story ended. Each is background traffic for the others."""
    names = chosen(request)

    async def tell(name: str) -> None:
        async with asyncio.timeout(BOUND), open_scene(shared_auditor, name, tally[story.fault(name)]) as scene:
            await story.tell(name, scene)

    async def tell_all() -> Endings:
        await shared_auditor.reading()
        return await side_by_side(names, tell, at_once=len(names))

    endings: Endings = dict.fromkeys(names)
    for _ in range(ROUNDS if long else 1):
        endings = {name: endings[name] or error for name, error in asyncio.run(tell_all()).items()}
    return endings


@pytest.mark.timeout(2 * BOUND * ROUNDS)
@pytest.mark.parametrize("name", story.parameters)
def test_the_auditor_tells_the_story_as_it_was(name: str, endings: Endings) -> None:
    error = endings[name]
    if error is not None:
        raise error
