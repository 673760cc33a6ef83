"""Trace events: what one firehose message says, as plain values.

Every name is text and every time an integer of microseconds since the Unix epoch, UTC. The events are named tuples and
not frozen dataclasses because one is made for each publish and each delivery on the broker, and a tuple costs a fifth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# A decoded field-table value. 64-bit timestamps stay integers: a `T` can exceed what a datetime holds.
Value = Any


class Properties(NamedTuple):
    """The basic properties of the audited message; None where the publisher set none.

    Source: `rabbit_trace.erl`, which writes only the set properties, and integers as signed 32-bit.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Value] = {}
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None  # as traced: truncated to a signed 32-bit number by the broker
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None


class Published(NamedTuple):
    """The broker routed a message; whether a queue took it is not said."""

    vhost: str
    exchange: str  # "" is the default exchange
    routing_keys: tuple[str, ...]  # the routing key, then CC, then BCC
    routed_queues: tuple[str, ...]
    properties: Properties
    body: bytes
    node: str
    connection: str  # "127.0.0.1:41000 -> 127.0.0.1:5672", of the publisher
    user: str
    received_at: int  # when the trace event reached the auditor


class Delivered(NamedTuple):
    """The broker handed a message to a consumer's socket; whether it was acknowledged is not said."""

    vhost: str
    queue: str
    exchange: str  # the exchange last published to: the dead-letter exchange for a dead-lettered message
    routing_keys: tuple[str, ...]
    redelivered: bool
    properties: Properties
    body: bytes
    node: str
    connection: str  # of the consumer
    user: str
    received_at: int


TraceEvent = Published | Delivered
