"""What still has to be told to tracing, and what was told of an order: values between the ledger and the spans.

The ids of what has no id of its own are derived here, by everybody who needs them in the same way: from what stands in
the ledger and never changes, so that telling it again repeats nothing under another id.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from auditor.core.hops import Reason, State

PUBLISH = -1
"""Stands for the publish itself, where otherwise the number of a hop stands."""

_ORDERS = 10_000  # remembered: an order's messages come close together, and each asks several times

Key = tuple[int, int, int, int]
"""By what the ledger finds a row of the outbox again."""


class Outgoing(NamedTuple):
    """One thing that happened: a publish, or a hop's move to a state, with what a span tells of it.

    State, reason and attempts are those of that moment; everything else is as the ledger has it now.
    """

    key: Key
    message: int
    hop: int  # HopRow.number, or PUBLISH
    state: State  # in_flight for a publish
    reason: Reason | None
    attempts: int
    before: State | None  # the hop's state before, if that was one to tell, too
    # the hop; of a publish the message's first hop, if it has one
    queue: str
    flow: str
    first_flow: str  # that of the message's first hop
    deadline: int  # microseconds after the publish
    wait: int | None  # microseconds from the publish to the first delivery
    judged_at: int | None
    redelivered: bool  # the broker's flag of the first delivery
    further_waits: tuple[tuple[int, int], ...]  # attempt and wait of further deliveries, up to `attempts`
    # the message
    vhost: str
    exchange: str
    routing_key: str
    message_id: str | None
    identity: int
    order_id: str | None
    stage: str | None
    sender: str
    size: int
    trace_context: str | None
    published_at: int
    time_source: str
    correlation_id: str | None


class OrderTrace(NamedTuple):
    """What was told of an order so far."""

    key: int  # of vhost and order id, see `order_key`
    trace_context: str | None  # that of its first message, whose trace it joins; None: it has a trace of its own
    rooted: bool  # its own trace's root is told
    stage: str | None  # the newest stage
    stage_message: int | None  # the message that announced it, and when
    stage_since: int | None
    told_at: int  # about when its newest message that was told of was published


class Told(NamedTuple):
    """What came of telling: counts, to be added up."""

    spans: int = 0  # taken by the receiver
    refused: int = 0  # not taken, and never will be
    dropped: int = 0  # rows that were given up before they could be told
    unsampled: int = 0  # rows of which no span was wanted
    invalid_contexts: int = 0  # messages whose trace context could not be used


@lru_cache(_ORDERS)
def order_key(vhost: str, order_id: str) -> int:
    """Return the signed 64-bit number by which an order's trace is found."""
    return int.from_bytes(_digest(8, "order", vhost, order_id), "big", signed=True)


def order_trace_id(vhost: str, order_id: str) -> bytes:
    """Return the id of the trace that an order has where no message brings one."""
    return _digest(16, "trace", vhost, order_id)


def message_trace_id(vhost: str, identity: int, message: int) -> bytes:
    """Return the id of the trace of a message that belongs to no order and brings none.

    The message's number is in it: a heartbeat without an id is the same message a million times.
    """
    return _digest(16, "message", vhost, identity, message)


def span_id(*parts: object) -> bytes:
    """Return the id of a span from all that makes it the only one of its kind."""
    return _digest(8, "span", *parts)


def _digest(size: int, *parts: object) -> bytes:
    joined = "\0".join(map(str, parts))
    return blake2b(joined.encode(errors="surrogatepass"), digest_size=size).digest()
