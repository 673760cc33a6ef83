"""Looks at queues without touching them: a passive declare tells ready messages and consumers."""

from __future__ import annotations

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import Channel
from aiormq.exceptions import AMQPChannelError, AMQPConnectionError, ChannelNotFoundEntity
from pamqp.commands import Queue

from auditor.core.judge import Inspection
from auditor.tap.connection import Now

# A refusal quotes the name, and RabbitMQ cuts its text at 252 bytes, be it within a character, which pamqp cannot read:
# the connection would be gone. What stands around the name takes up to 120 bytes.
_MAX_QUOTED = 128


class _PassiveDeclare(Queue.Declare):
    """A passive declare of any queue: pamqp refuses names that RabbitMQ takes, such as "orders=eu" or "größe"."""

    def validate(self) -> None:
        """Leave it to the broker."""


class Inspector:
    """Inspects queues of one vhost, one after another, over a channel of its own."""

    def __init__(self, connection: AbstractConnection, limit: float, now: Now) -> None:
        """`limit` is how many seconds one inspection may take, `now` tells when it was made."""
        self._connection = connection
        self._limit = limit
        self._now = now
        self._channel: AbstractChannel | None = None

    async def inspect(self, queue: str) -> Inspection:
        """Look at a queue. Connection errors are the caller's; a refusal is an inspection that saw nothing."""
        if self._channel is None or self._channel.is_closed:  # the broker closes the channel with each refusal
            if self._connection.is_closed:
                raise AMQPConnectionError("the connection was closed")
            self._channel = self._connection.channel()
            await self._channel.initialize(timeout=self._limit)
        # names that are not UTF-8 are told in escapes, under which no queue would be found
        if "\\x" in queue or (not queue.isascii() and len(queue.encode()) > _MAX_QUOTED):
            return Inspection(queue, self._now(), None)
        underlay = await self._channel.get_underlay_channel()
        assert isinstance(underlay, Channel)
        try:
            found = await underlay.rpc(_PassiveDeclare(queue=queue, passive=True), timeout=self._limit)
        except ChannelNotFoundEntity as error:
            # a queue whose node is down answers 404 too, with another text: it may come back, with its messages
            gone = "no queue" in str(error)
            return Inspection(queue, self._now(), False if gone else None)
        except AMQPChannelError:  # 405: an exclusive queue of another connection
            return Inspection(queue, self._now(), None)
        assert isinstance(found, Queue.DeclareOk)
        return Inspection(queue, self._now(), True, found.message_count or 0, found.consumer_count or 0)
