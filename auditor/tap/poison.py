"""Events that the broker can take but not deliver: those of an exchange or a queue with a name of over 247 bytes.

The routing key of a trace event is `publish.` or `deliver.` and that name, and a routing key has at most 255 bytes in
AMQP. The broker notices while it writes to the consumer's socket, and ends the connection with 541; the event goes
back to the queue, and ends the next one [tried on 3.10.8 and 4.0.5]. Only the management API can take it out, and it
gives the event away with it: so nothing is lost.
"""

from __future__ import annotations

import base64
from typing import Any

from auditor.core.events import Delivered, Properties, Published, TraceEvent
from auditor.errors import BrokerError
from auditor.tap.management import Management

_LONGEST = 255 - len("publish.")  # bytes of a name; "deliver." is as long


def take_head(api: Management, vhost: str, queue: str, now: int) -> TraceEvent | None:
    """Take the event at the head of the queue out and return it; None when the queue is empty.

    Not looked at first: what the API puts back comes back some time after its answer, and the next call would get, and
    take out, its neighbour. If it is a neighbour all the same, it is no loss, for it is returned.
    """
    body = {"count": 1, "ackmode": "ack_requeue_false", "encoding": "base64"}
    answer = api.call("POST", "queues", vhost, queue, "get", body=body, expected=list)
    return event_of(answer[0], now) if answer else None


def cannot_be_delivered(event: TraceEvent) -> bool:
    """Tell whether the routing key of a trace event is longer than AMQP can carry."""
    name = event.exchange if isinstance(event, Published) else event.queue
    return len(name.encode()) > _LONGEST


def event_of(answer: dict[str, Any], now: int) -> TraceEvent:
    """Read a trace event as the management API gives it; KeyError or TypeError when it is none."""
    headers = answer["properties"]["headers"]
    given = headers["properties"]
    names = set(Properties._fields) & set(given)
    properties = Properties(**{name: given[name] for name in names})
    body = base64.b64decode(answer["payload"]) if answer["payload_encoding"] == "base64" else answer["payload"].encode()
    kind, _, name = answer["routing_key"].partition(".")
    keys = tuple(headers["routing_keys"])
    where = (headers["node"], headers["connection"], headers["user"], now)
    if kind == "publish":
        routed = tuple(headers["routed_queues"])
        return Published(headers["vhost"], headers["exchange_name"], keys, routed, properties, body, *where)
    if kind == "deliver":
        redelivered = headers["redelivered"] == 1
        return Delivered(headers["vhost"], name, headers["exchange_name"], keys, redelivered, properties, body, *where)
    raise BrokerError("An event of the trace queue is none", on=answer["routing_key"][:40])
