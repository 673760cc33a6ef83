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
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
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
from auditor.core.traceparent import Context, parse

Parent = Literal["message", "order"]

_HOPS_OF = frozenset({State.DELIVERED, State.LATE})
_KINDS = 1 << 64  # as many values as an order's key, or an identity, can have
_REMEMBERED = 10_000  # publishes of unsampled messages that were told with a verdict, so that none is told twice
_ANONYMOUS = "amq.gen-"  # how the names begin that the broker gives to queues
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
    """Where the spans of a message belong."""

    trace_id: bytes
    parent: bytes  # span id; empty: none


class Builder:
    """Makes the spans of one broker. For one thread."""

    def __init__(self, *, host: str, port: int, parent: Parent, ratios: Mapping[str, float]) -> None:
        """`ratios`: of a flow's orders, whose healthy hops are told; all of them where it is not in here."""
        self._by_order = parent == "order"
        self._ratios = ratios
        self._common = [
            _text("messaging.system", "rabbitmq"),
            _flag("auditor.synthetic", True),
            _text("server.address", host),
            _number("server.port", port),
        ]
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

    @property
    def by_order(self) -> bool:
        """Whether a hop's parent is its order's root and not its message's context."""
        return self._by_order

    @property
    def common(self) -> Sequence[KeyValue]:
        """The attributes of every span."""
        return self._common


class _Building:
    """The spans of one batch."""

    def __init__(self, builder: Builder, orders: Mapping[int, OrderTrace]) -> None:
        self._builder = builder
        self._orders = dict(orders)
        self._changed: dict[int, OrderTrace] = {}
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

    # sampling, and what is known of orders

    def _order(self, key: int, row: Outgoing, context: Context | None) -> OrderTrace:
        """Return what is known of a row's order, and note that it was told of."""
        order = self._orders.get(key)
        if order is None:
            header = row.trace_context if context is not None and not self._builder.by_order else None
            order = OrderTrace(key, header, False, None, None, None, row.published_at)
            self._note(order)
        elif row.published_at > order.told_at + _HOUR:
            order = order._replace(told_at=row.published_at)
            self._note(order)
        return order

    def _note(self, order: OrderTrace) -> None:
        self._orders[order.key] = self._changed[order.key] = order

    def _order_place(self, row: Outgoing, context: Context | None, key: int) -> _Place:
        """Return where an order's own spans belong; its root is made if it has none yet."""
        order = self._order(key, row, context)
        joined = None if order.trace_context is None else parse(order.trace_context)
        if joined is not None:
            return _Place(joined.trace_id, joined.span_id)
        assert row.order_id is not None
        trace_id = order_trace_id(row.vhost, row.order_id)
        root = span_id(trace_id, "root")
        if not order.rooted:
            self._note(order._replace(rooted=True))
            self._add(
                "order", Span.SPAN_KIND_INTERNAL, _Place(trace_id, b""), root, row.published_at, row.published_at, row
            )
        return _Place(trace_id, root)

    # spans

    def _publish(self, row: Outgoing, context: Context | None, key: int | None) -> None:
        """Tell of a publish: the stage that it ends, and the publish itself where its publisher does not."""
        if key is not None and row.stage is not None:
            self._stage(row, context, key)
        if context is None:
            self._publish_span(row, key)

    def _publish_span(self, row: Outgoing, key: int | None) -> _Place:
        place = self._publish_place(row, key)
        destination, template = _destination(row, "")
        attributes = [
            _text("messaging.destination.name", destination),
            _text("messaging.operation.name", "send"),
            _text("messaging.operation.type", "send"),
            *_message(row),
        ]
        if template != destination:
            attributes.append(_text("messaging.destination.template", template))
        if row.sender:
            attributes.append(_text("auditor.sender", row.sender))
        at = row.published_at
        self._add(f"send {template}", Span.SPAN_KIND_PRODUCER, place, _publish_id(row), at, at, row, attributes)
        return place

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
            attributes = [_text("auditor.order.stage", order.stage), _text("auditor.order.next_stage", row.stage or "")]
            id = span_id(place.trace_id, "stage", order.key, order.stage_message)
            self._add(
                f"stage {order.stage}", Span.SPAN_KIND_INTERNAL, place, id, order.stage_since, row.published_at, row,
                attributes, stage=False,
            )  # fmt: skip
        self._note(self._orders[key]._replace(stage=row.stage, stage_message=row.message, stage_since=row.published_at))

    def _waiting_stage(self, row: Outgoing, place: _Place, key: int) -> None:
        """Tell of the stage in which an order waits, because the message that announced it did not arrive."""
        order = self._orders[key]
        if order.stage is None or order.stage_since is None or order.stage_message != row.message:
            return
        id = span_id(place.trace_id, "stage", key, row.message, "waits", row.hop)
        status = Status(code=Status.STATUS_CODE_ERROR, message="the order waits here")
        _, until = _times(row, False)
        self._add(
            f"stage {order.stage}", Span.SPAN_KIND_INTERNAL, place, id, order.stage_since, until, row, status=status
        )

    def _hop(
        self, row: Outgoing, context: Context | None, key: int | None, *, publish_told: bool, healthy_told: bool
    ) -> None:
        """Tell of a hop. `publish_told`: the span of its publish has been; `healthy_told`: that it was delivered."""
        links = []
        order_place = None if key is None else self._order_place(row, context, key)
        if context is not None and (order_place is None or not self._builder.by_order):
            place = _Place(context.trace_id, context.span_id)
        elif context is not None:
            assert order_place is not None
            place = order_place
        else:
            place = self._publish_place(row, key)._replace(parent=_publish_id(row))
            if not publish_told and self._builder.remember_publish(row.message):
                self._publish_span(row, key)
        if context is not None:
            links.append(_link(context.trace_id, context.span_id, _REMOTE_FLAGS))
        if row.before is not None and (healthy_told or row.before is not State.DELIVERED):
            links.append(_link(place.trace_id, _hop_id(row, row.before), _FLAGS))
        if order_place is not None and order_place.trace_id != place.trace_id:
            links.append(_link(order_place.trace_id, order_place.parent, _FLAGS))
        if row.state in AGAINST and row.before not in AGAINST and key is not None and order_place is not None:
            self._waiting_stage(row, order_place, key)
        again = row.before is row.state
        start, end = _times(row, again)
        destination, template = _destination(row, row.queue)
        attributes = [
            _text("messaging.destination.name", destination),
            _text("messaging.operation.name", "deliver"),
            *_message(row),
            _text("auditor.flow", row.flow),
            _text("auditor.verdict", row.state.value),
            _number("auditor.attempts", row.attempts),
        ]
        if template != destination:
            attributes.append(_text("messaging.destination.template", template))
        if row.reason is not None:
            attributes.append(_text("auditor.reason", row.reason.value))
        if row.attempts > 1 or row.redelivered:
            attributes.append(_flag("auditor.redelivered", True))
        status = None
        if row.state in AGAINST:
            attributes.append(_text("error.type", row.state.value))
            words = row.state.value if row.reason is None else f"{row.state.value}: {row.reason.value}"
            status = Status(code=Status.STATUS_CODE_ERROR, message=words)
        span = self._add(
            f"deliver {template}",
            Span.SPAN_KIND_CONSUMER,
            place,
            _hop_id(row, row.state, row.attempts if again else None),
            start,
            end,
            row,
            attributes,
            links,
            status,
            remote=context is not None and place.parent == context.span_id,
        )
        if not again:
            for attempt, wait in row.further_waits:
                at = (row.published_at + wait) * _NS
                span.events.add(name="delivered again", time_unix_nano=at).attributes.append(
                    _number("auditor.attempts", attempt)
                )

    def _add(
        self,
        name: str,
        kind: Span.SpanKind.ValueType,
        place: _Place,
        id: bytes,
        start: int,
        end: int,
        row: Outgoing,
        attributes: Sequence[KeyValue] = (),
        links: Sequence[Span.Link] = (),
        status: Status | None = None,
        *,
        stage: bool = True,
        remote: bool = False,
    ) -> Span:
        """Make a span with what all have in common; times in microseconds."""
        ours = []
        if row.order_id is not None:
            ours.append(_text("auditor.order.id", row.order_id))
        if stage and row.stage is not None:
            ours.append(_text("auditor.order.stage", row.stage))
        if row.time_source == "arrival":  # when the auditor saw it, which is later than it was
            ours.append(_APPROXIMATE)
        span = Span(
            trace_id=place.trace_id,
            span_id=id,
            parent_span_id=place.parent,
            flags=_REMOTE_FLAGS if remote else _FLAGS,
            name=name,
            kind=kind,
            start_time_unix_nano=start * _NS,
            end_time_unix_nano=max(start, end) * _NS,
            attributes=[*self._builder.common, *attributes, *ours],
            links=links,
            status=status,
        )
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
    deadline = published + row.deadline
    if again:
        waits = [(1, row.wait or 0), *row.further_waits]
        return published + waits[-2 if len(waits) > 1 else -1][1], published + waits[-1][1]
    if row.state in _HOPS_OF and row.wait is not None:
        return published, published + row.wait
    if row.state is State.UNROUTABLE:
        return published, published
    if row.state is State.DEAD_LETTERED and row.judged_at is not None:
        return published, row.judged_at
    return published, deadline


def _destination(row: Outgoing, queue: str) -> tuple[str, str]:
    """Return what a message was sent to, in full and without what differs from message to message."""
    key, exchange = row.routing_key, row.exchange
    template = key
    for id, stand_in in ((row.order_id, "{order}"), (row.message_id, "{message}")):
        if id:
            template = template.replace(id, stand_in)
    queue_template = "{anonymous}" if queue.startswith(_ANONYMOUS) else queue
    parts = [exchange, key, "" if queue == key else queue]
    templates = [exchange, template, "" if queue == key else queue_template]
    # of the default exchange the routing key is the queue's name
    if not exchange and key.startswith(_ANONYMOUS):
        templates[1] = "{anonymous}"
    return ":".join(filter(None, parts)) or "amq.default", ":".join(filter(None, templates)) or "amq.default"


def _message(row: Outgoing) -> list[KeyValue]:
    attributes = [_number("messaging.message.body.size", row.size)]
    if row.routing_key:
        attributes.append(_text("messaging.rabbitmq.destination.routing_key", row.routing_key))
    if row.message_id is not None:
        attributes.append(_text("messaging.message.id", row.message_id))
    return attributes


def _publish_id(row: Outgoing) -> bytes:
    return span_id(row.vhost, row.identity, row.message, "publish")


def _hop_id(row: Outgoing, state: State, attempt: int | None = None) -> bytes:
    """Return the id of the span that tells that a hop came into a state, or was delivered once more in it."""
    return span_id(row.vhost, row.identity, row.message, row.hop, row.queue, state.value, attempt)


def _link(trace_id: bytes, id: bytes, flags: int) -> Span.Link:
    return Span.Link(trace_id=trace_id, span_id=id, flags=flags)


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _number(key: str, value: int) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(int_value=value))


def _flag(key: str, value: bool) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(bool_value=value))


_APPROXIMATE = _flag("auditor.time.approximate", True)
