"""The applications: one process that publishes and consumes, with a bounded number of messages on their way.

    python -m tests.benchmarks.traffic --url amqp://… --messages 50000
    python -m tests.benchmarks.traffic --url amqp://… --seconds 5 --rate 3000

Prints one JSON object: messages per second that went all the way, and how long they took (milliseconds). Since one
consumer reads one queue, deliveries come in the order of the publishes, and nothing has to be decoded.
"""

from __future__ import annotations

import argparse
import json
import select
import sys
import time
from itertools import islice
from statistics import quantiles
from typing import Any

from pamqp import commands

from tests.benchmarks.messages import EXCHANGE, QUEUE, ROUTING_KEY, frames
from tests.benchmarks.wire import Deliveries, RawConnection, acks

_WINDOW = 2000  # messages on their way at most: enough to saturate the broker, too few to pile up in it
_CHUNK = 50  # messages in one write
_WARM_UP = 1.0  # seconds that are not measured, of a run by time
_STALL = 60.0  # seconds without anything happening after which the run is given up


def run(url: str, *, first: int, messages: int | None, seconds: float, rate: float | None) -> dict[str, Any]:
    """Publish and consume until so many messages are through, or so long; return the figures."""
    publisher, consumer = RawConnection(url), RawConnection(url)
    _declare(consumer)
    publisher.socket.setblocking(False)
    consumer.socket.setblocking(False)
    source = frames(first)
    deliveries = Deliveries()
    sent_at: list[float] = []
    took: list[float] = []
    pending = memoryview(b"")
    began = time.monotonic()
    measured_from = began if messages is not None else began + _WARM_UP
    ends = began + _WARM_UP + seconds
    skipped = 0  # messages through before the measuring began
    last = began
    while True:
        now = time.monotonic()
        if now < measured_from:
            skipped = len(took)
        if len(took) >= messages if messages is not None else now >= ends:
            break
        if now - last > _STALL:
            raise TimeoutError(f"nothing went through for {_STALL:.0f} s, after {len(took)} messages")
        room = min(_CHUNK, _WINDOW - len(sent_at) + len(took))
        if messages is not None:
            room = min(room, messages - len(sent_at))
        if rate is not None:
            room = min(room, int((now - began) * rate) - len(sent_at))
        wants = bool(pending) or room > 0
        wait = 0.5 if rate is None or wants else 0.001
        readable, writable, _ = select.select([consumer.socket], [publisher.socket] if wants else [], [], wait)
        if writable:
            if not pending:
                pending = memoryview(b"".join(islice(source, room)))
                sent_at += [now] * room
            pending = pending[publisher.socket.send(pending) :]
        if readable:
            count = deliveries.feed(consumer.socket.recv(1 << 18))
            last = now = time.monotonic()
            done = len(took)
            took += [now - at for at in sent_at[done : done + count]]
            _send_all(consumer, acks(range(done + 1, done + count + 1)))
    elapsed = time.monotonic() - measured_from
    took = took[skipped:]
    cuts = quantiles(took, n=100)
    return {
        "messages": len(took),
        "messages_per_s": len(took) / elapsed,
        "median_ms": cuts[49] * 1000,
        "p99_ms": cuts[98] * 1000,
    }


def _declare(connection: RawConnection) -> None:
    connection.call(
        commands.Exchange.Declare(exchange=EXCHANGE, exchange_type="topic", durable=True), "Exchange.DeclareOk"
    )
    connection.call(commands.Queue.Declare(queue=QUEUE, durable=True), "Queue.DeclareOk")
    connection.call(commands.Queue.Bind(queue=QUEUE, exchange=EXCHANGE, routing_key=ROUTING_KEY), "Queue.BindOk")
    connection.call(commands.Queue.Purge(queue=QUEUE), "Queue.PurgeOk")
    connection.call(commands.Basic.Qos(prefetch_count=1000), "Basic.QosOk")
    connection.call(commands.Basic.Consume(queue=QUEUE), "Basic.ConsumeOk")


def _send_all(connection: RawConnection, data: bytes) -> None:
    connection.socket.setblocking(True)
    connection.socket.sendall(data)
    connection.socket.setblocking(False)


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description="Publish and consume on a broker as fast as it takes it.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first message: ids are made of it")
    parser.add_argument("--messages", type=int, help="so many, in place of --seconds")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, help="messages per second at most")
    given = parser.parse_args()
    figures = run(given.url, first=given.first, messages=given.messages, seconds=given.seconds, rate=given.rate)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
