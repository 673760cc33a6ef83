"""Draining: everybody gets the same backlog, made by real traffic, each from a queue of its own.

The queues of a round are bound to the trace exchange together, so one run of the applications fills all of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

from pamqp import commands

from auditor.demo.server import Broker
from auditor.tap.topology import TRACE_EXCHANGE, queue_arguments
from tests.benchmarks.contenders import Contender, Drained
from tests.benchmarks.processes import PYTHON, run
from tests.benchmarks.wire import RawConnection

_FILLING = 240.0  # seconds
_SETTLING = 30.0  # seconds until the last events have arrived in the queues


def drain_all(
    broker: Broker, contenders: Mapping[str, Contender], *, messages: int, rounds: int, say: Callable[[str], None]
) -> dict[str, list[Drained]]:
    """Let everybody drain the events of so many messages, so many times, taking turns at going first."""
    results: dict[str, list[Drained]] = {name: [] for name in contenders}
    events = 2 * messages  # each is published and delivered
    for number in range(rounds):
        names = list(contenders)
        names = names[number % len(names) :] + names[: number % len(names)]
        fill(broker, [_queue(name) for name in names], messages=messages, first=number * messages)
        for name in names:
            drained = contenders[name](broker, _queue(name), events)
            results[name].append(drained)
            broker.management.delete("queues", "/", _queue(name))
            say(
                f"round {number + 1}: {name}: {drained.events_per_s:,.0f} events/s, "
                f"{drained.cpu_us_per_event:.1f} us of CPU each"
            )
    return results


def fill(broker: Broker, queues: list[str], *, messages: int, first: int = 0) -> None:
    """Make queues and fill them with the events of so many messages."""
    for queue in queues:
        make_trace_queue(broker, queue)
    switch_firehose(broker, on=True)
    command = [*PYTHON, "tests.benchmarks.traffic", "--url", broker.url()]
    json.loads(run([*command, "--first", str(first), "--messages", str(messages)], _FILLING))
    deadline = time.monotonic() + _SETTLING
    while any(broker_depth(broker, queue) < 2 * messages for queue in queues):
        if time.monotonic() > deadline:
            raise RuntimeError("the trace queues did not get all events")
        time.sleep(0.2)
    switch_firehose(broker, on=False)


def make_trace_queue(broker: Broker, queue: str) -> None:
    """Make a queue as the auditor makes its own, and bind it to everything."""
    arguments = queue_arguments(broker.version, 1 << 30)
    broker.management.put("queues", "/", queue, json={"durable": True, "arguments": arguments})
    broker.management.post("bindings", "/", "e", TRACE_EXCHANGE, "q", queue, json={"routing_key": "#"})


def switch_firehose(broker: Broker, *, on: bool) -> None:
    """Switch the vhost's firehose on or off."""
    broker.management.put("vhosts", "/", json={"tracing": on})


def broker_depth(broker: Broker, queue: str) -> int:
    """Return how many messages of a queue are ready, now; what the management API says is seconds old."""
    connection = RawConnection(broker.url())
    try:
        answer = connection.call(commands.Queue.Declare(queue=queue, passive=True), "Queue.DeclareOk")
        return int(answer.message_count)
    finally:
        connection.socket.close()


def _queue(name: str) -> str:
    return f"bench.{name}"
