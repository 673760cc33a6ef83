"""The consumer: contents of the trace queue in batches, acknowledged when the ledger has them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from aio_pika.abc import AbstractChannel
from aio_pika.connection import Connection
from aiormq.abc import AbstractChannel as UnderlayChannel
from aiormq.exceptions import AMQPError, ChannelAccessRefused, ConnectionInternalError

from auditor.errors import BrokerError
from auditor.tap.connection import (
    CONNECTION_ERRORS,
    Endpoint,
    Now,
    SplittingReader,
    answer,
    connect_tap,
    wall_clock,
)
from auditor.tap.topology import refused
from auditor.tap.wire import Content


class Poisoned(BrokerError):
    """The broker ended the connection by an error of its own: it cannot deliver what is next in the queue."""


class Tap:
    """One consumer of one trace queue, on a connection of its own on which nothing is ever published.

    A publishing connection is stopped by the broker when memory or disk run short, and this one must go on reading
    then.
    """

    def __init__(
        self, endpoint: Endpoint, queue: str, *, prefetch: int, max_buffered: int, now: Now = wall_clock
    ) -> None:
        """`prefetch` bounds the contents that are not acknowledged, `max_buffered` the bytes that wait to be taken.

        `now` tells when a content arrived.
        """
        self._endpoint = endpoint
        self._queue = queue
        self._prefetch = prefetch
        self._max_buffered = max_buffered
        self._now = now
        self._wake = asyncio.Event()
        self._wanted = 1  # contents that are worth waking for
        self._contents: list[Content] = []  # what has arrived; `batch` takes it
        self._reader: SplittingReader | None = None
        self._connection: Connection | None = None
        self._channel: AbstractChannel | None = None  # a strong reference: aio-pika closes what nobody holds
        self._underlay: UnderlayChannel | None = None
        self._confirmation: asyncio.Task[Any] | None = None  # of the last acknowledgement
        self._closed_because: BaseException | None = None

    async def open(self) -> None:
        """Connect and consume; BrokerError when it cannot be."""
        self._connection = await self._connect(f"auditor tap {self._queue}")
        try:
            self._connection.close_callbacks.add(self._on_close)
            self._channel = self._connection.channel(publisher_confirms=False)
            await self._channel.initialize(timeout=self._endpoint.timeout)
            await self._channel.set_qos(prefetch_count=self._prefetch)
            self._channel.close_callbacks.add(self._on_close)
            self._underlay = await self._channel.get_underlay_channel()
            self._underlay.on_consumer_cancel_callbacks.add(self._on_cancel)
            await self._consume(self._underlay)
        except ChannelAccessRefused as error:
            await self.close()
            raise refused("read the trace queue", self._queue, error) from error
        except CONNECTION_ERRORS as error:
            await self.close()
            raise self._lost(error) from error

    async def batch(self, limit: int, linger: float, wait: float) -> list[Content]:
        """Return what has arrived: at most `limit` contents, or none when nothing came within `wait` seconds.

        After the first content, `linger` seconds are left for others to join it, so that a trickle does not cost a
        transaction an event. BrokerError once the connection is gone: what had arrived comes again with the next one.
        """
        contents = self._contents
        if not await self._arrived(1, wait):
            return []
        await self._arrived(limit, linger)
        if self._closed_because is not None:
            raise self._lost(self._closed_because)
        batch = contents[:limit]
        del contents[:limit]
        self._make_room(batch)
        return batch

    async def _arrived(self, wanted: int, wait: float) -> bool:
        """Wait until so many contents have come; False when they did not in time. A lost connection ends the wait."""
        if len(self._contents) >= wanted or self._closed_because is not None:
            return True
        self._wanted = wanted
        self._wake.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), wait)
        return self._wake.is_set()

    def pause(self) -> None:
        """Read nothing until `resume`.

        For while a batch is audited: reading would only take turns with the audit at the interpreter, and take the
        bytes a few at a time, as the broker writes them. Left alone they gather in the socket, and are read in one go.
        """
        if self._reader is not None:
            self._reader.hold()

    def resume(self) -> None:
        """Read on."""
        if self._reader is not None:
            self._reader.release()

    async def acknowledge(self, content: Content) -> None:
        """Acknowledge this content and all before it.

        Returns once the acknowledgement before this one is confirmed, so that of all that was committed only the last
        two batches can come again. AMQP confirms no acknowledgements, but it works off a channel in order: the answer
        to something else on it will do.
        """
        assert self._underlay is not None, "the tap is not open"
        try:
            await self._confirmed()
            await self._underlay.basic_ack(content.delivery_tag, multiple=True, wait=False)
            confirm = self._underlay.basic_qos(prefetch_count=self._prefetch, timeout=self._endpoint.timeout)
            self._confirmation = asyncio.create_task(confirm, name="confirm acknowledgement")
        except CONNECTION_ERRORS as error:
            raise self._lost(self._closed_because or error) from error

    def wake(self) -> None:
        """Have a waiting `batch` return at once."""
        self._wake.set()

    async def close(self) -> bool:
        """Close the connection; what was not acknowledged goes back to the queue.

        True when everything that was acknowledged is confirmed, so that none of it comes again.
        """
        connection, self._connection = self._connection, None
        settled = False
        if connection is not None:
            if self._channel is not None and self._closed_because is None:
                # its answer says that all acknowledgements were taken; closing the connection throws away what waits
                # to be sent
                if self._reader is not None:
                    self._reader.release()
                with suppress(*CONNECTION_ERRORS):
                    await asyncio.wait_for(self._confirmed(), self._endpoint.timeout)
                    settled = self._closed_because is None
                    await answer(asyncio.wait_for(self._channel.close(), self._endpoint.timeout))
            self._closed_because = self._closed_because or AMQPError("closed by us")
            await connection.close()
        if self._confirmation is not None:
            self._confirmation.cancel()
            await asyncio.gather(self._confirmation, return_exceptions=True)
        return settled

    async def _confirmed(self) -> None:
        if self._confirmation is not None:
            await answer(asyncio.shield(self._confirmation))  # `close` waits for it, too, when this is cancelled

    # these three are what makes it the fast lane; `auditor.tap.plain` does them otherwise

    async def _connect(self, name: str) -> Connection:
        self._reader = SplittingReader(self._on_content, self._max_buffered, self._now)
        self._contents = self._reader.splitter.contents
        return await connect_tap(self._endpoint, name, self._reader)

    async def _consume(self, channel: UnderlayChannel) -> None:
        assert self._reader is not None
        self._reader.splitter.watch(channel.number)
        await channel.basic_consume(self._queue, _never, timeout=self._endpoint.timeout)

    def _make_room(self, batch: list[Content]) -> None:
        """Count the bytes of what was taken out, and have the reader read on once nothing is left."""
        assert self._reader is not None
        if self._contents:
            self._reader.splitter.size -= sum(len(content.properties) + len(content.body) for content in batch)
        else:
            self._reader.splitter.size = 0
            self._reader.release()

    def _lost(self, error: BaseException) -> BrokerError:
        kind = Poisoned if isinstance(error, ConnectionInternalError) else BrokerError
        return kind("Lost the trace queue", on=self._queue, why=str(error) or type(error).__name__)

    def _on_content(self) -> None:
        if len(self._contents) >= self._wanted:
            self._wake.set()

    def _on_close(self, _: Any, error: BaseException | None) -> None:
        self._closed_because = self._closed_because or error or AMQPError("the connection was closed")
        self._wake.set()

    def _on_cancel(self, *_: Any) -> None:
        self._closed_because = self._closed_because or AMQPError(
            "the broker cancelled the consumer: the queue was deleted"
        )
        self._wake.set()


async def _never(_: Any) -> None:
    """The callback that aiormq wants; contents are taken out of the stream before aiormq sees them."""
