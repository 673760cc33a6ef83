"""Spans from what happened: one trace that shows an order's way through the queues.

Pure: rows of the outbox in, OTLP messages out. They are made directly, since the SDK's way costs several times the CPU
and wants to give out ids and times by itself.

Where a hop's span belongs is told by its message:

- A trace context of its own: there, as a child of that context and with a link to it (docs/decisions/0021).
- None, but an order: the order's trace, that of the first context among its messages, or else one of its own with the
  span `order` as root. The publish gets a span, too, and the hop's is its child.
- Neither: a trace of its own, with the publish as root.

What enters a stage ends the one before: that becomes a span, `stage SUBMITTED`, beside the publishes and hops. The one
that an order does not leave becomes one, too, once there is a verdict against the message that announced it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from auditor.core.hops import AGAINST, State
from auditor.core.outgoing import (
    PUBLISH,
    OrderTrace,
    Outgoing,
    message_trace_id,
    order_key,
    order_trace_id,
    span_id,
)
from auditor.core.trace_context import Context, parse
from auditor.windows.parts import About, Parts, flag, number

Parent = Literal["message", "order"]

_DELIVERED = frozenset({State.DELIVERED, State.LATE})
_KINDS = 1 << 64  # as many values as an order's key, or an identity, can have
_REMEMBERED = 10_000  # publishes of unsampled messages that were told with a verdict, so that none is told twice
_HOUR = 3_600_000_000  # microseconds; how exact it is kept when an order was told of, which only pruning asks for
_NS = 1000  # nanoseconds a microsecond
_SAMPLED, _IS_REMOTE_KNOWN, _IS_REMOTE = 0x001, 0x100, 0x200  # flags of OTLP spans and links
_FLAGS = _SAMPLED | _IS_REMOTE_KNOWN
_REMOTE_FLAGS = _FLAGS | _IS_REMOTE


class Built(NamedTuple):
    """What is to be told of some rows."""

    spans: list[Span]
    orders: list[OrderTrace]  # what was told of them, once the spans are taken
    unsampled: int  # rows that nothing is told of
    invalid_contexts: int  # messages whose trace context is none


class _Place(NamedTuple):
    """Where a span belongs."""

    trace_id: bytes
    parent: bytes  # span id; empty: none
    state: str = ""  # tracestate of the trace, where a message brought it


class Builder:
    """Makes the spans of one broker. For one thread."""

    def __init__(self, *, host: str, port: int, parent: Parent, ratios: Mapping[str, float]) -> None:
        """`ratios`: of a flow's orders, whose healthy hops are told; all of them where it is not in here."""
        self.by_order = parent == "order"  # a hop's parent is its order's root, and not its message's context
        self.parts = Parts(host, port)
        self._ratios = ratios
        self._told_publishes: OrderedDict[int, None] = OrderedDict()

    def build(self, rows: Iterable[Outgoing], orders: Mapping[int, OrderTrace]) -> Built:
        """Make the spans of rows, in the order of the outbox; `orders` is what was told before, by key."""
        return _Building(self, orders).build(rows)

    def sampled(self, flow: str, chance: int) -> bool:
        """Whether an order (or message) of this number is among those that a flow's ratio lets through."""
        ratio = self._ratios.get(flow, 1.0)
        return ratio >= 1.0 or (chance % _KINDS) < ratio * _KINDS

    def remember_publish(self, message: int) -> bool:
        """Note that a publish is told out of turn; False when it was before."""
        if message in self._told_publishes:
            return False
        self._told_publishes[message] = None
        if len(self._told_publishes) > _REMEMBERED:
            self._told_publishes.popitem(last=False)
        return True


class _Building:
    """The spans of one batch."""

    def __init__(self, builder: Builder, orders: Mapping[int, OrderTrace]) -> None:
        self._builder = builder
        self._orders = dict(orders)
        self._changed: dict[int, OrderTrace] = {}
        self._places: dict[int, _Place] = {}  # of orders
        self._spans: list[Span] = []

    def build(self, rows: Iterable[Outgoing]) -> Built:
        unsampled = invalid = 0
        for row in rows:
            context = None if row.trace_context is None else parse(row.trace_context)
            if row.hop == PUBLISH and row.trace_context is not None and context is None:
                invalid += 1
            key = None if row.order_id is None else order_key(row.vhost, row.order_id)
            if not self._row(row, context, key):
                unsampled += 1
        return Built(self._spans, list(self._changed.values()), unsampled, invalid)

    def _row(self, row: Outgoing, context: Context | None, key: int | None) -> bool:
        """Make the spans of a row; False when none are wanted."""
        chance = row.identity if key is None else key
        by_ratio = self._builder.sampled(row.first_flow, chance)
        if row.hop == PUBLISH:
            if not by_ratio:
                return False
            # known from here on, be it only that those who publish do not record its trace
            order = None if key is None else self._order(key, row, context)
            if not _by_flag(context, order):
                return False
            self._publish(row, context, key)
            return True
        by_flag = _by_flag(context, None if key is None else self._orders.get(key))
        healthy = self._builder.sampled(row.flow, chance) and by_flag
        if row.state is State.DELIVERED and not healthy:
            return False
        self._hop(row, context, key, publish_told=by_ratio and by_flag, healthy_told=healthy)
        return True

    # orders

    def _order(self, key: int, row: Outgoing, context: Context | None) -> OrderTrace:
        """Return what is known of a row's order, and note that it was told of."""
        order = self._orders.get(key)
        if order is None:
            joins = row.trace_context if context is not None and not self._builder.by_order else None
            order = OrderTrace(key, joins, False, None, None, None, row.published_at)
            self._note(order)
        elif row.published_at > order.told_at + _HOUR:
            order = order._replace(told_at=row.published_at)
            self._note(order)
        return order

    def _note(self, order: OrderTrace) -> None:
        self._orders[order.key] = self._changed[order.key] = order

    def _order_place(self, row: Outgoing, context: Context | None, key: int) -> _Place:
        """Return where an order's own spans belong; its root is made if it has none yet."""
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._find_place(row, self._order(key, row, context))
        return place

    def _find_place(self, row: Outgoing, order: OrderTrace) -> _Place:
        joined = None if order.trace_context is None else parse(order.trace_context)
        if joined is not None:
            return _Place(joined.trace_id, joined.span_id, joined.state)
        assert row.order_id is not None
        trace_id = order_trace_id(row.vhost, row.order_id)
        root = span_id(trace_id, "root")
        if not order.rooted:
            self._note(order._replace(rooted=True))
            at = row.published_at
            self._add(About("order", row.stage, row.time_source), _Place(trace_id, b""), root, at, at, row)
        return _Place(trace_id, root)

    # publishes

    def _publish(self, row: Outgoing, context: Context | None, key: int | None) -> None:
        """Tell of a publish: the stage that it ends, and the publish itself where its publisher does not."""
        if key is not None and row.stage is not None:
            self._stage(row, context, key)
        if context is None:
            self._publish_span(row, key)

    def _publish_span(self, row: Outgoing, key: int | None) -> None:
        about = About(
            "send", row.stage, row.time_source, row.exchange, row.routing_key, *_ids_in_key(row), row.sender
        )  # fmt: skip
        at = row.published_at
        _tell_message(self._add(about, self._publish_place(row, key), _publish_id(row), at, at, row), row)

    def _publish_place(self, row: Outgoing, key: int | None) -> _Place:
        if key is None:
            return _Place(message_trace_id(row.vhost, row.identity, row.message), b"")
        return self._order_place(row, None, key)

    def _stage(self, row: Outgoing, context: Context | None, key: int) -> None:
        order = self._order(key, row, context)
        if order.stage_message is not None and (row.message <= order.stage_message or row.stage == order.stage):
            return
        if order.stage is not None and order.stage_since is not None:
            place = self._order_place(row, context, key)
            id = span_id(place.trace_id, "stage", key, order.stage_message)
            about = About(f"stage {order.stage}", order.stage, row.time_source)
            span = self._add(about, place, id, order.stage_since, row.published_at, row)
            _put(span, "auditor.order.next_stage", row.stage or "")
        self._note(self._orders[key]._replace(stage=row.stage, stage_message=row.message, stage_since=row.published_at))

    def _waiting_stage(self, row: Outgoing, place: _Place, key: int) -> None:
        """Tell of the stage in which an order waits, because the message that announced it did not arrive."""
        order = self._orders[key]
        if order.stage is None or order.stage_since is None or order.stage_message != row.message:
            return
        id = span_id(place.trace_id, "stage", key, row.message, "waits", row.hop)
        about = About(f"stage {order.stage}", order.stage, row.time_source)
        _, until = _times(row, False)
        span = self._add(about, place, id, order.stage_since, until, row)
        span.status.code = Status.STATUS_CODE_ERROR
        span.status.message = "the order waits here"

    # hops

    def _hop(
        self, row: Outgoing, context: Context | None, key: int | None, *, publish_told: bool, healthy_told: bool
    ) -> None:
        """Tell of a hop. `publish_told`: the span of its publish has been; `healthy_told`: that it was delivered."""
        order_place = None if key is None else self._order_place(row, context, key)
        if context is None:
            place = self._publish_place(row, key)._replace(parent=_publish_id(row))
            if not publish_told and self._builder.remember_publish(row.message):
                self._publish_span(row, key)
        elif order_place is not None and self._builder.by_order:
            place = order_place
        else:
            place = _Place(context.trace_id, context.span_id, context.state)
        if row.state in AGAINST and row.before not in AGAINST and key is not None and order_place is not None:
            self._waiting_stage(row, order_place, key)
        again = row.before is row.state
        start, end = _times(row, again)
        about = About(
            "deliver", row.stage, row.time_source, row.exchange, row.routing_key, *_ids_in_key(row), "",
            row.queue, row.flow, row.state, row.reason,
        )  # fmt: skip
        span = self._add(about, place, _hop_id(row, row.state, row.attempts if again else None), start, end, row)
        if context is not None:
            if place.parent == context.span_id:
                span.flags = _REMOTE_FLAGS
            _link(span, context.trace_id, context.span_id, _REMOTE_FLAGS, context.state)
        if row.before is not None and (healthy_told or row.before is not State.DELIVERED):
            _link(span, place.trace_id, _hop_id(row, row.before), _FLAGS, place.state)
        if order_place is not None and order_place.trace_id != place.trace_id:
            _link(span, order_place.trace_id, order_place.parent, _FLAGS, order_place.state)
        _tell_message(span, row)
        _tell_attempts(span, row, again)

    def _add(self, about: About, place: _Place, id: bytes, start: int, end: int, row: Outgoing) -> Span:
        """Make a span with what all have; times in microseconds."""
        span: Span = Span.FromString(self._builder.parts.of(about))
        span.trace_id = place.trace_id
        span.span_id = id
        span.parent_span_id = place.parent
        span.flags = _FLAGS
        if place.state:
            span.trace_state = place.state
        span.start_time_unix_nano = start * _NS
        span.end_time_unix_nano = max(start, end) * _NS
        if row.order_id is not None:
            _put(span, "auditor.order.id", row.order_id)
        self._spans.append(span)
        return span


def _by_flag(context: Context | None, order: OrderTrace | None) -> bool:
    """Whether those who publish record the trace: the message's own flag, or else that of the trace its order is in."""
    if context is None and order is not None and order.trace_context is not None:
        context = parse(order.trace_context)
    return context is None or context.sampled


def _times(row: Outgoing, again: bool) -> tuple[int, int]:
    """Return when a hop's span starts and ends, in microseconds."""
    published = row.published_at
    if again:
        waits = [(1, row.wait or 0), *row.further_waits]
        return published + waits[-2 if len(waits) > 1 else -1][1], published + waits[-1][1]
    if row.state in _DELIVERED and row.wait is not None:
        return published, published + row.wait
    if row.state is State.UNROUTABLE:
        return published, published
    if row.state is State.DEAD_LETTERED and row.judged_at is not None:
        return published, row.judged_at
    return published, published + row.deadline


def _ids_in_key(row: Outgoing) -> tuple[str | None, str | None]:
    """Return those of the order's and the message's id that stand in the routing key."""
    order, message, key = row.order_id, row.message_id, row.routing_key
    return (order if order and order in key else None, message if message and message in key else None)


def _publish_id(row: Outgoing) -> bytes:
    return span_id(row.vhost, row.identity, row.message, "publish")


def _hop_id(row: Outgoing, state: State, attempt: int | None = None) -> bytes:
    """Return the id of the span that tells that a hop came into a state, or was delivered once more in it."""
    return span_id(row.vhost, row.identity, row.message, row.hop, row.queue, state.value, attempt)


def _tell_message(span: Span, row: Outgoing) -> None:
    size = span.attributes.add()
    size.key = "messaging.message.body.size"
    size.value.int_value = row.size
    if row.message_id is not None:
        _put(span, "messaging.message.id", row.message_id)
    if row.correlation_id is not None:
        _put(span, "messaging.message.conversation_id", row.correlation_id)


def _tell_attempts(span: Span, row: Outgoing, again: bool) -> None:
    attempts = span.attributes.add()
    attempts.key = "auditor.attempts"
    attempts.value.int_value = row.attempts
    if row.attempts > 1 or row.redelivered:
        span.attributes.append(flag("auditor.redelivered", True))
    if not again:
        for attempt, wait in row.further_waits:
            event = span.events.add(name="delivered again", time_unix_nano=(row.published_at + wait) * _NS)
            event.attributes.append(number("auditor.attempts", attempt))


def _put(span: Span, key: str, value: str) -> None:
    """Add an attribute, in half the time that a message of its own would take."""
    attribute = span.attributes.add()
    attribute.key = key
    attribute.value.string_value = value


def _link(span: Span, trace_id: bytes, id: bytes, flags: int, state: str) -> None:
    span.links.add(trace_id=trace_id, span_id=id, flags=flags, trace_state=state)
