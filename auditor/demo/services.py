"""Shop, CRM and MES: three systems that work orders over RabbitMQ, each as a process of its own.

    python -m auditor.demo.services shop|crm|mes

Their settings come as one JSON object on the first line of standard input, because they hold a password:
`{"url": "amqp://...", "facts": "/path/shop.jsonl", "seed": 1, "orders": 150, "rate": 5.0, "otlp": "http://..."}`.
Each further line is a command to the system: `open` (the shop takes its orders from now on), `resume LINE` (the MES
works an idle line again). A system ends at the end of its input, so none outlives whoever started it.

No system knows the auditor. What each really published and received it writes into its facts file. Shop and CRM are
instrumented with OpenTelemetry; the MES is not, as some systems never will be.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from auditor.demo import orders
from auditor.demo.facts import FactsWriter
from auditor.demo.faults import DEAD_LETTERS, FAULTS, HEALTHY_LINES, Fault, make_plan, queue_of
from auditor.demo.telemetry import Instrumented, Telemetry

_CONNECT = 10  # seconds; without a limit an unanswered handshake hangs for ever
_PREFETCH = 200  # messages a system has in its hands at once
_WORK = 0.2  # seconds that each step of an order takes in this hasty factory

Handler = Callable[[AbstractIncomingMessage, str], Awaitable[None]]  # the message and its order id


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a system is told at its start."""

    url: str  # with user and password
    facts: Path
    seed: int
    orders: int  # how many orders were wanted
    rate: float  # orders a second
    otlp: str = ""  # base URL of who takes spans; empty: nobody does


class System:
    """What the three have in common: connect, publish with confirms, consume, and tell the facts."""

    exchange: ClassVar[str]  # where it publishes
    instrumented: ClassVar[bool] = True

    def __init__(self, job: Job) -> None:
        self.job = job
        name = type(self).__name__.lower()
        self.telemetry = Instrumented(name, job.otlp) if job.otlp and self.instrumented else Telemetry()
        self.plan = make_plan(job.seed, job.orders)
        self.facts = FactsWriter(job.facts)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._channel: AbstractChannel
        self._exchange: AbstractExchange

    async def consume(self) -> None:
        """Start consuming; nothing by default."""

    def command(self, words: list[str]) -> None:
        """Do what a line of standard input asks for."""
        raise ValueError(f"{type(self).__name__} knows no command {words}")

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Work until the end of the commands; raise when a handler fails or the broker goes away."""
        connection = await aio_pika.connect(self.job.url, timeout=_CONNECT)
        async with connection:
            self._channel = await connection.channel(publisher_confirms=True)
            await self._channel.set_qos(prefetch_count=_PREFETCH)
            self._exchange = await self._channel.get_exchange(self.exchange)
            await self.consume()
            self.facts.write("ready")
            ends = {
                asyncio.create_task(self._commands(commands), name="commands"),
                asyncio.create_task(self._closed(), name="connection"),
                self._failed,
            }
            done, pending = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for rest in (*pending, *self._tasks):
                rest.cancel()
            await asyncio.to_thread(self.telemetry.close)
            for end in done:
                end.result()

    async def publish(self, key: str, order: str, kind: str, *, copies: int = 1) -> None:
        """Publish the message by which an order takes a step, wait for its confirm, and note it as a fact.

        Not mandatory: these systems do not look whether anybody gets their messages, and that is their trouble.
        """
        seed = self.job.seed
        stage = None if kind == orders.PRICE_REQUEST else kind
        for _ in range(copies):
            with self.telemetry.sending(self.exchange, key) as headers:
                message = aio_pika.Message(
                    orders.body(seed, order, kind),
                    headers=headers,
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    message_id=orders.message_id(seed, order, kind),
                )
                await self._exchange.publish(message, routing_key=key, mandatory=False)
            self.facts.write("published", message_id=message.message_id, order=order, stage=stage)

    async def listen(self, queue: str, handle: Handler) -> None:
        """Consume a queue; each message is a fact first, and acknowledged when its handler has not settled it."""

        async def receive(message: AbstractIncomingMessage) -> None:
            content = json.loads(message.body)["order"]
            self.facts.write(
                "received",
                message_id=message.message_id,
                order=content["id"],
                stage=content.get("stage"),
                queue=queue,
            )
            with self.telemetry.processing(queue, content["id"], message.headers):
                await handle(message, content["id"])
            if not message.processed:
                await message.ack()

        async def watched(message: AbstractIncomingMessage) -> None:
            await self._watch(receive(message))

        await (await self._channel.get_queue(queue)).consume(watched)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Let something run beside the consumers; its failure is the system's."""
        task = asyncio.create_task(self._watch(work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            if not self._failed.done():
                self._failed.set_exception(error)

    async def _closed(self) -> None:
        await self._channel.closed()
        raise ConnectionError("the broker closed the channel")

    async def _commands(self, commands: asyncio.StreamReader) -> None:
        async for line in commands:
            self.command(line.decode().split())


class Shop(System):
    """Takes orders at a steady pace and tells the CRM of each step of the customer."""

    exchange = "shop.orders"

    def command(self, words: list[str]) -> None:
        if words != ["open"]:
            super().command(words)
        self.start(self._trade(), "trade")

    async def _trade(self) -> None:
        begin = asyncio.get_running_loop().time()
        for number, order in enumerate(self.plan.orders):
            await asyncio.sleep(begin + number / self.job.rate - asyncio.get_running_loop().time())
            self.start(self._customer(order), order)

    async def _customer(self, order: str) -> None:
        with self.telemetry.work("take order"):
            await self.publish("order.initiated", order, "INITIATED")
            await asyncio.sleep(_WORK)
            await self.publish("order.file-uploaded", order, "FILE_UPLOADED")
            await asyncio.sleep(_WORK)
            await self.publish("order.submitted", order, "SUBMITTED")


class Crm(System):
    """Asks the MES for the price of a submitted order, approves it for a production line, closes it when shipped."""

    exchange = "crm.orders"

    async def consume(self) -> None:
        await self.listen("crm.shop-orders", self._from_shop)
        await self.listen("crm.mes-orders", self._from_mes)

    async def _from_shop(self, message: AbstractIncomingMessage, order: str) -> None:
        if message.routing_key == "order.submitted":
            await self.publish("price.requested", order, orders.PRICE_REQUEST)

    async def _from_mes(self, message: AbstractIncomingMessage, order: str) -> None:
        if message.routing_key == "order.price-calculated":
            line = self.plan.lines[order]
            copies = FAULTS[line].copies if line in FAULTS else 1
            await self.publish(f"order.approved.{line}", order, "MANUFACTURING_APPROVED", copies=copies)
        elif message.routing_key == "order.shipped":
            await self.publish("order.closed", order, "CLOSED")


class Mes(System):
    """Calculates prices and manufactures what is approved, on several lines of which some have a defect."""

    exchange = "mes.orders"
    instrumented = False

    async def consume(self) -> None:
        self._begun: set[str] = set()  # orders whose manufacturing has been started: an approval may come twice
        await self.listen("mes.pricing", self._price)
        await self.listen("mes.closings", self._file)
        await self.listen(DEAD_LETTERS, self._file)
        for line in HEALTHY_LINES:
            await self.listen(queue_of(line), self._manufacture)
        for fault in FAULTS.values():
            if fault.queue is not None and not fault.idle:
                await self.listen(queue_of(fault.name), self._line(fault))

    def command(self, words: list[str]) -> None:
        match words:
            case ["resume", line]:
                self.start(self._resume(line), f"resume {line}")
            case _:
                super().command(words)

    async def _resume(self, line: str) -> None:
        await self.listen(queue_of(line), self._manufacture)
        self.facts.write("resumed", queue=queue_of(line))

    def _line(self, fault: Fault) -> Handler:
        match fault.consumer:
            case "rejects":
                return self._reject
            case "requeues once":
                return self._requeue_once
            case "works":
                return self._manufacture

    async def _price(self, message: AbstractIncomingMessage, order: str) -> None:
        await self.publish("order.price-calculated", order, "PRICE_CALCULATED")

    async def _manufacture(self, message: AbstractIncomingMessage, order: str) -> None:
        if order in self._begun:
            return
        self._begun.add(order)
        await self.publish("order.manufacturing-started", order, "MANUFACTURING_STARTED")
        for step in ("MANUFACTURING_COMPLETED", "PACKAGING", "SHIPPED"):
            await asyncio.sleep(_WORK)
            await self.publish(f"order.{step.lower().replace('_', '-')}", order, step)

    async def _requeue_once(self, message: AbstractIncomingMessage, order: str) -> None:
        if message.redelivered:
            await self._manufacture(message, order)
        else:
            await message.nack(requeue=True)

    async def _reject(self, message: AbstractIncomingMessage, order: str) -> None:
        await message.reject(requeue=False)

    async def _file(self, message: AbstractIncomingMessage, order: str) -> None:
        """Nothing is left to do: a closed order, or a dead letter that the clerk puts on a pile."""


SYSTEMS: dict[str, type[System]] = {"shop": Shop, "crm": Crm, "mes": Mes}


async def _main(name: str) -> None:
    lines = asyncio.StreamReader()
    # Not sys.stdin.readline in a thread: a thread that waits for input would hold up the end of a failed system.
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    settings: dict[str, Any] = json.loads(await lines.readline())
    settings["facts"] = Path(settings["facts"])
    await SYSTEMS[name](Job(**settings)).run(lines)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
