"""What the matcher learned from a batch: the rows that one transaction writes.

The values are the ledger's columns in the words of the design; names are text here and become numbers only inside the
ledger. A message's `id` is given by the matcher, counting on from the ledger's highest, so that rows refer to each
other before they are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from auditor.core.hops import Reason, State


class MessageRow(NamedTuple):
    """One publish that was seen."""

    id: int
    vhost: str
    exchange: str
    routing_key: str
    message_id: str | None  # as the flow's settings find it; the property of that name by default
    identity: int  # signed 64-bit digest by which its deliveries are recognised
    order_id: str | None
    stage: str | None
    sender: str  # the publishing system of its flow
    user_id: str | None  # the business user named in the message
    error: str | None  # the error announced in the message
    user: str  # the broker user that published it
    connection: str
    node: str
    priority: int  # 0 where none is set
    size: int  # bytes of the body
    trace_context: str | None  # the W3C headers, see `trace_context.combined`
    published_at: int  # microseconds since the epoch
    time_source: str  # how exact published_at is: a `TimeSource`
    correlation_id: str | None = None  # the property of that name


class HopRow(NamedTuple):
    """A message on its way to one queue, as it stands after the batch."""

    message: int  # MessageRow.id
    number: int  # 0, 1, ... within the message
    queue: str  # "" for an unroutable message
    flow: str
    state: State
    reason: Reason | None
    deadline: int  # microseconds after the publish
    wait: int | None  # microseconds from the publish to the first delivery
    attempts: int  # deliveries seen, redeliveries included
    judged_at: int | None  # when a verdict against it was given, microseconds since the epoch; None: none was


class DeliveryRow(NamedTuple):
    """One delivery of a hop."""

    message: int
    hop: int  # HopRow.number
    attempt: int  # 1 for the first
    wait: int  # microseconds after the publish (negative when the delivery's event came first)
    user: str  # the broker user that consumed it
    connection: str
    redelivered: bool


class OrphanRow(NamedTuple):
    """A delivery whose publish was not seen."""

    id: int  # given by the matcher, as for messages
    vhost: str
    queue: str
    exchange: str
    routing_key: str
    identity: int
    message_id: str | None
    order_id: str | None
    stage: str | None
    flow: str | None
    size: int
    user: str
    connection: str
    redelivered: bool
    received_at: int


class StoredHop(NamedTuple):
    """A hop as the ledger gives it back, with what the matcher needs of its message."""

    message: int
    number: int
    vhost: str
    queue: str
    exchange: str
    flow: str
    identity: int
    priority: int
    published_at: int
    state: State
    reason: Reason | None
    deadline: int
    wait: int | None
    attempts: int
    hops: int  # how many hops the message has


class StageEntry(NamedTuple):
    """An order in a stage: from the message that announces it until the one that announces another."""

    message: int  # MessageRow.id of the first
    order_id: str
    stage: str
    system: str
    vhost: str
    entered_at: int
    previous: int | None = None  # the entry before, by its message
    left_at: int | None = None  # None: no later stage is known
    due_at: int | None = None  # when it has taken too long; None: the stage has no deadline
    steps: int | None = None  # places from the stage before: 1 the next, more skipped some, less than 0 back
    repeated: bool = False  # it was in this stage before
    began_at: int | None = None  # when it entered the first of all stages; None: that was not seen
    open: bool = False  # it is in it, and further stages are expected
    ends: bool = False  # the stage is the last one
    errors: int = 0  # messages that announced an error meanwhile
    error: str | None = None  # the newest


Move = tuple[str, str, State | None, State, Reason | None, int | None]
"""A hop that came into a state: its flow and queue, the state before (None: it is new), the state, the reason, and the
microseconds from the publish to its first delivery, where that has come. A plain tuple, since each event makes one."""


@dataclass(slots=True)
class Changes:
    """Everything one transaction writes; empty when nothing changed."""

    messages: list[MessageRow] = field(default_factory=list)
    hops: list[HopRow] = field(default_factory=list)  # new and changed ones: at most one row a hop
    deliveries: list[DeliveryRow] = field(default_factory=list)
    orphans: list[OrphanRow] = field(default_factory=list)
    entries: list[StageEntry] = field(default_factory=list)  # new and changed ones: at most one row a message
    moves: list[Move] = field(default_factory=list)  # not written: what the metrics count
    adopted: list[int] = field(default_factory=list)  # ids of earlier orphans whose publish came after all
