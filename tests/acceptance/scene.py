"""A scene: one small story with a broker, and what the auditor makes of it.

Scenes share a vhost and an auditor. What belongs to a scene is told by a prefix that all its names have; a test sees
neither the prefix nor what belongs to others.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage, AbstractQueue

from auditor.ledger.queries import Reader
from tests.acceptance import raw
from tests.acceptance.harness import BOUND, Auditor, Row
from tests.faults.tally import Count

Claim = tuple[str | None, str, str, str | None]  # message id, queue, state, reason
Handler = Callable[[AbstractIncomingMessage], Awaitable[Any]]


class Scene:
    """See the module's text."""

    def __init__(
        self, auditor: Auditor, name: str, connection: AbstractConnection, channel: AbstractChannel, count: Count
    ) -> None:
        self.auditor = auditor
        self.count = count
        self.prefix = f"{name}-{secrets.token_hex(2)}."
        self.connection = connection
        self.channel = channel
        self.got: list[str | None] = []  # ids of the messages that consumers were given, in that order
        self._arrived = asyncio.Condition()
        self._sentinels = 0
        self._to_settle = False  # something was published since all was judged
        self._counted: Counter[Claim] = Counter()

    # the broker's side

    async def queue(self, name: str, **arguments: Any) -> AbstractQueue:
        """Declare a queue; arguments are those of RabbitMQ, `_` for `-`."""
        return await self.channel.declare_queue(
            self.prefix + name,
            durable=True,
            arguments={key.replace("_", "-"): value for key, value in arguments.items()},
        )

    async def dead_letter_queue(self, name: str) -> tuple[AbstractQueue, dict[str, str]]:
        """Declare a queue, and return it with the arguments of another one whose dead letters end in it."""
        return await self.queue(name), {
            "x_dead_letter_exchange": "",
            "x_dead_letter_routing_key": self.prefix + name,
        }

    async def exchange(self, name: str, kind: str = "fanout", **arguments: Any) -> AbstractExchange:
        """Declare an exchange."""
        return await self.channel.declare_exchange(self.prefix + name, kind, arguments=_dashed(arguments))

    async def publish(
        self,
        id: str | None,
        key: str = "inbox",
        *,
        exchange: AbstractExchange | None = None,
        body: bytes = b'{"hello": "world"}',
        **properties: Any,
    ) -> None:
        """Publish a message, to a queue of the scene through the default exchange unless it is told otherwise."""
        self._to_settle = True
        name = "" if exchange is None else exchange.name
        if id is None:
            # aio-pika gives each message an id that has none
            underlay = await self.channel.get_underlay_channel()
            await raw.publish(underlay, body, exchange=name, key=self.prefix + key)
        else:
            message = aio_pika.Message(body, message_id=self.prefix + id, **properties)
            to = await self.channel.get_exchange(name, ensure=False)
            await to.publish(message, self.prefix + key, mandatory=False, timeout=BOUND)

    async def in_flight(self, id: str) -> AbstractQueue:
        """Publish a message to a queue that nobody consumes from, and return that once the auditor has seen it."""
        inbox = await self.queue("inbox")
        await self.publish(id)
        await self.auditor.seen()
        return inbox

    async def lose(self, id: str, key: str = "inbox", **properties: Any) -> None:
        """Lose a message: publish it to a queue, and purge that."""
        queue = await self.queue(key)
        await self.publish(id, key, **properties)
        await queue.purge()

    async def transact(self, id: str, key: str, *, commit: bool) -> None:
        """Publish a message in a transaction, and commit it or roll it back."""
        self._to_settle = True
        async with self.connection.channel(publisher_confirms=False) as channel:
            transaction = channel.transaction()
            await transaction.select(timeout=BOUND)
            message = aio_pika.Message(b"{}", message_id=self.prefix + id)
            await channel.default_exchange.publish(message, self.prefix + key, mandatory=False, timeout=BOUND)
            await (transaction.commit if commit else transaction.rollback)(timeout=BOUND)

    async def consume(
        self,
        queue: AbstractQueue,
        handler: Handler | None = None,
        *,
        prefetch: int = 0,
        arguments: dict[str, Any] | None = None,
    ) -> AbstractChannel:
        """Serve a queue on a channel of its own until that is closed; acknowledges what it gets unless told else."""
        channel = await self.connection.channel()
        await channel.set_qos(prefetch_count=prefetch)

        async def on_message(message: AbstractIncomingMessage) -> None:
            await (message.ack() if handler is None else handler(message))
            async with self._arrived:
                self.got.append(self._bare(message.message_id))
                self._arrived.notify_all()

        await (await channel.get_queue(queue.name, ensure=False)).consume(on_message, arguments=arguments)
        return channel

    async def arrived(self, count: int) -> list[str | None]:
        """Wait until the scene's consumers were given so many messages, redelivered ones counted again."""
        async with asyncio.timeout(BOUND), self._arrived:
            await self._arrived.wait_for(lambda: len(self.got) >= count)
        return self.got

    # the auditor's side

    async def settled(self) -> None:
        """Wait until the auditor has seen all that happened, and judged all that was published, before this call.

        A message to a queue that does not exist tells when: queues are inspected and judged in the order in which their
        hops became overdue.
        """
        if not self._to_settle:
            await self.auditor.seen()
            return
        self._to_settle = False
        self._sentinels += 1
        sentinel = f"{self.prefix}sentinel-{self._sentinels}"
        await self.channel.default_exchange.publish(
            aio_pika.Message(b"", message_id=sentinel), sentinel, mandatory=False
        )

        def judged(reader: Reader) -> bool:
            return any(row["state"] == "lost" for row in reader.message(sentinel))

        await self.auditor.until(judged, f"a verdict on {sentinel}")

    async def claims(self) -> list[Claim]:
        """What is claimed of the scene's messages, as `auditor lost` has it, sorted, once all is judged."""
        await self.settled()
        return self._claims(await self._ask(lambda reader: reader.lost(limit=None)))

    async def claimed(self, *planted: Claim) -> None:
        """Hold what is claimed against what was planted, and fail where it is not the same.

        Counts both; what an earlier call has counted is not counted again.
        """
        claims = await self.claims()
        again = Counter(planted) & self._counted
        self._counted |= Counter(planted)
        self.count.hold((Counter(planted) - again).elements(), (Counter(claims) - again).elements())
        must = sorted(planted, key=repr)
        if claims != must:
            told = [f"claimed: {claims}", f"planted: {must}", f"gaps: {self.auditor.ask(Reader.gaps)}"]
            raise AssertionError("\n".join([*told, *map(str, await self.hops()), self.auditor.log]))

    async def hops(self) -> list[Claim]:
        """What the scene's messages have come to, as `auditor hops` has it, sorted, once all is judged."""
        await self.settled()
        return self._claims(await self._ask(lambda reader: reader.hops(limit=None)))

    async def message(self, id: str) -> list[Row]:
        """What is told of a message of the scene, as `auditor message` has it."""
        return await self._ask(lambda reader: reader.message(self.prefix + id))

    async def becomes(self, id: str, state: str) -> None:
        """Wait until a message with one hop is in a state."""
        name = self.prefix + id
        await self.auditor.until(
            lambda reader: [row["state"] for row in reader.message(name)] == [state], f"{id} becomes {state}"
        )

    async def _ask(self, question: Callable[[Reader], list[Row]]) -> list[Row]:
        """Put the question of a reading command; not by the command itself, whose start takes half a second of CPU."""
        return await asyncio.to_thread(self.auditor.ask, question)

    def _claims(self, rows: list[Row]) -> list[Claim]:
        claims = [
            (self._bare(row["message_id"]), self._bare(row["queue"]) or "", row["state"], row["reason"])
            for row in rows
            if self._mine(row["message_id"]) or self._mine(row["queue"])
        ]
        return sorted((claim for claim in claims if not claim[1].startswith("sentinel-")), key=repr)

    def _mine(self, name: str | None) -> bool:
        return name is not None and name.startswith(self.prefix)

    def _bare(self, name: str | None) -> str | None:
        return None if name is None else name.removeprefix(self.prefix)


@asynccontextmanager
async def open_scene(auditor: Auditor, name: str, count: Count | None = None) -> AsyncIterator[Scene]:
    """Open a scene with an auditor that reads; `count` is where its claims are counted."""
    async with await aio_pika.connect(auditor.broker.url(auditor.vhost), timeout=BOUND) as connection:
        # publishes are confirmed: when `publish` returns, the queues have the message
        yield Scene(auditor, name[:40], connection, await connection.channel(), count or Count())


def _dashed(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in arguments.items()}
