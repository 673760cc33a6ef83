"""The matcher: which delivery belongs to which publish.

It is driven with trace events in the order in which they were read, and keeps no clock: time is in the events, and in
the watermark that is handed to it. What it learned is taken batch by batch (`take`). Verdicts are
`auditor.core.judge`'s part.

The rules, in the order in which `_delivered` applies them to a delivery from a queue:

1. A message with an `x-death` did not come to this queue by its publish, unless a hop is open here that was published
   with this very `x-death` (where that is no longer known: to the same exchange). It closes the hop that its `x-death`
   names, and is the delivery of a further hop of the same message.
2. A redelivered one belongs to a hop that was delivered before, if there is one.
3. Otherwise it belongs to the oldest open hop of its identity and queue: first in, first out.
4. Otherwise, if it was held back on its way (`auditor.core.delays`), to the hop of the place where it was held back,
   which is moved to this queue; or if that has gone to another queue, it is the delivery of a further hop. Where it was
   delivered here before and rejected into a delay queue, it is delivered once more.
5. Otherwise to the oldest hop of which no delivery was expected any more (`lost`, `unknown`): it is late.
6. Otherwise its publish was not seen. It is recorded as an orphan, and for a while waits for a publish that comes after
   all: the broker orders events within a channel only.
7. If none came, it belongs to the newest delivered one: delivered once more. Not before, or the delivery of a message
   that equals an earlier one would be taken for the earlier one's, and the message for lost.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from auditor.core.book import Book, Hop, Message, age
from auditor.core.changes import Changes, DeliveryRow, MessageRow, OrphanRow, StoredHop
from auditor.core.deaths import AFTER_DELIVERY, Death, deaths, fingerprint
from auditor.core.delays import EXCHANGE, Arrived, delay_of, was_delayed
from auditor.core.events import Delivered, Published, TraceEvent
from auditor.core.evicted import OpenHops, Stored
from auditor.core.extract import text
from auditor.core.flows import Flow, FlowTable, retired
from auditor.core.hops import OPEN, Reason, State
from auditor.core.identity import identify
from auditor.core.judge import Judge
from auditor.core.times import Times
from auditor.core.trace_context import combined

_MAX_WAITING = 100_000  # orphans that wait for their publish; past it the oldest stop waiting, about 50 MB

_STREAM = "x-stream-offset"  # the header of what is read from a stream: there everybody begins where he likes
_REPLY_TO = "amq.rabbitmq.reply-to"  # how the names of the pseudo queues of direct replies begin

_new = tuple.__new__  # makes a named tuple in half the time that calling its class takes

_AWAITED = frozenset({State.LOST, State.UNKNOWN})
_DELIVERED = frozenset({State.DELIVERED, State.LATE})
_HAD = _DELIVERED | {State.DEAD_LETTERED}


class _Orphan(NamedTuple):
    """A delivery that waits for its publish."""

    id: int
    received_at: int
    at: int  # when it happened, as far as that is known
    redelivered: bool
    user: str
    connection: str
    overtakes: bool  # whether it is evidence that earlier messages of the queue are gone


class Matcher:
    """Matches the trace events of one vhost.

    `stored` reads the ledger's hops, `new_message` and `new_orphan` hand out row ids, `orphan_wait` is in microseconds.
    At most `max_open_hops` open hops stay in memory after a batch.
    """

    def __init__(
        self,
        vhost: str,
        flows: FlowTable,
        *,
        stored: Stored,
        new_message: Callable[[], int],
        new_orphan: Callable[[], int],
        orphan_wait: int,
        reinspect: int,
        overtake_margin: int,
        max_open_hops: int,
        times: Times,
    ) -> None:
        self._vhost = vhost
        self._flows = flows
        self._new_message = new_message
        self._new_orphan = new_orphan
        self._orphan_wait = orphan_wait
        self._max_open_hops = max_open_hops
        self._book = Book(stored, self._flow_of)
        self.judge = Judge(self._book, reinspect=reinspect, overtake_margin=overtake_margin)
        self._times = times
        self._arrived = Arrived()
        self._epoch: int | None = None
        self._waiting: OrderedDict[int, tuple[int, str]] = OrderedDict()  # orphan id -> key, oldest first
        self._orphans: dict[tuple[int, str], list[_Orphan]] = {}
        # since the last commit:
        self._messages: list[MessageRow] = []
        self._deliveries: list[DeliveryRow] = []
        self._new_orphans: dict[int, OrphanRow] = {}
        self._adopted: list[int] = []

    @property
    def open_hops(self) -> int:
        """How many hops are open."""
        return len(self._book)

    def restore(self, hops: Iterable[StoredHop], evicted: Iterable[OpenHops], orphans: Iterable[OrphanRow]) -> None:
        """Take up where the ledger stands: its open hops, and the orphans that may still find their publish.

        `evicted` are the open hops that stay in the ledger, beside those that are given.
        """
        for hop in self._book.restore(hops, evicted):
            self.judge.expect(hop)
        for row in orphans:
            # whether it came from a stream is not stored
            waiting = _Orphan(
                row.id, row.received_at, row.received_at, row.redelivered, row.user, row.connection, overtakes=False
            )
            self._await_publish((row.identity, row.queue), waiting)

    def see(self, event: TraceEvent) -> None:
        """Take in the next trace event."""
        if isinstance(event, Published):
            self._published(event)
        else:
            self._delivered(event)

    def advance(self, watermark: int, *, newest: int | None, upcoming: int | None) -> None:
        """Take in that a canary's trace event stood at this place among the others, and where the watermark is now.

        `newest` and `upcoming`: see `Times.advance`.
        """
        self._epoch = watermark
        self._times.advance(newest, upcoming)
        while self._waiting:
            key = next(iter(self._waiting.values()))
            if self._orphans[key][0].received_at + self._orphan_wait >= watermark:
                break
            self._give_up()

    def take(self) -> Changes:
        """Return what was learned since the last call; the caller commits it before it takes in more."""
        changes = Changes(
            messages=self._messages,
            hops=self._book.take(),
            deliveries=self._deliveries,
            orphans=list(self._new_orphans.values()),
            adopted=self._adopted,
            moves=self._book.take_moves(),
        )
        self._messages, self._deliveries, self._new_orphans, self._adopted = [], [], {}, []
        if self._book.at_hand > self._max_open_hops:
            self._evict()
        return changes

    def _evict(self) -> None:
        """Leave open hops to the ledger, which has them once these changes are committed."""
        # some more than must be, so that it need not be done after each batch
        count = self._book.at_hand - self._max_open_hops + self._max_open_hops // 16
        overdue = self.judge.surplus(count)
        self._evict_all(overdue)
        self._evict_all(self._book.longest(count - len(overdue)))

    def _evict_all(self, hops: Iterable[Hop]) -> None:
        for hop in hops:
            self.judge.evict(hop)
            self._book.evict(hop)

    # publishes

    def _published(self, event: Published) -> None:
        flows = self._flows.of_publish(event.exchange, event.user, event.connection)
        if not flows:
            return
        targets = self._targets(event, flows)
        if targets is None:
            return
        identity = identify(event.vhost, event.properties, event.body)
        priority = event.properties.priority or 0
        sender = targets[0][1]
        fields = sender.extract(event)
        published_at, time_source = self._times.published(event.received_at, event.properties.headers)
        message = Message(
            self._new_message(), identity, event.exchange, priority, published_at, self._epoch,
            fingerprint(event.properties.headers), len(targets),
        )  # fmt: skip
        headers = event.properties.headers
        traceparent = headers.get("traceparent")
        correlation = event.properties.correlation_id
        message_id, order_id, stage, user_id, error = fields
        row = (  # by place: twenty names cost four times as much
            message.id,
            event.vhost,
            event.exchange,
            event.routing_keys[0] if event.routing_keys else "",
            message_id,
            identity,
            order_id,
            stage,
            sender.sender,
            user_id,
            error,
            event.user,
            event.connection,
            event.node,
            priority,
            len(event.body),
            combined(traceparent, headers.get("tracestate")) if isinstance(traceparent, str) else None,
            published_at,
            time_source,
            None if correlation is None else text(correlation),
        )
        self._messages.append(_new(MessageRow, row))
        for number, (queue, flow, deadline) in enumerate(targets):
            if deadline is not None:
                hop = Hop(message, number, queue, flow, deadline)
                self._book.add(hop)
                self.judge.expect(hop)
                if self._orphans:
                    self._adopt(hop)
            else:
                self._book.add(Hop(message, number, queue, flow, flow.deadline, State.UNROUTABLE, Reason.NO_QUEUE))

    def _targets(self, event: Published, flows: tuple[Flow, ...]) -> list[tuple[str, Flow, int | None]] | None:
        """Return the queues to expect the message from, each with flow and deadline; None when it is not our business.

        A message that no queue was found for has one target, the queue with the empty name, and no deadline.
        """
        if event.routed_queues:
            targets: list[tuple[str, Flow, int | None]] = []
            for queue in event.routed_queues:
                # a direct reply goes to a channel: its delivery is traced by no version before 4.2
                found = None if queue.startswith(_REPLY_TO) else self._flows.of_hop(flows, queue)
                if found is not None:
                    targets.append((queue, *found))
            return targets or None
        if event.exchange == "":
            return None  # a direct reply; the default exchange always names a queue otherwise, existing or not
        if delay := delay_of(event.properties.headers):
            for flow in flows:
                if flow.delayed_exchange(event.exchange):
                    return [(EXCHANGE, flow, delay + flow.deadline)]
        return [("", flows[0], None)]

    # deliveries

    def _delivered(self, event: Delivered) -> None:
        died = deaths(event.properties.headers) if "x-death" in event.properties.headers else []
        flow = self._flow_of_delivery(event.queue, died)
        if flow is None:
            return
        identity = identify(event.vhost, event.properties, event.body)
        hop = self._find(event, identity, flow, died)
        if hop is not None:
            at = self._times.delivered(event.received_at)
            overtakes = not event.redelivered and _STREAM not in event.properties.headers
            self._deliver(hop, at, event.received_at, event.redelivered, event.user, event.connection, overtakes)
        else:
            self._orphan(event, identity, flow)

    def _flow_of_delivery(self, queue: str, died: list[Death]) -> Flow | None:
        """Return the flow of a queue, or else of the newest place where the message died that is on one."""
        if queue.startswith(_REPLY_TO):
            return None
        flow = self._flows.of_queue(queue)
        if flow is None and died:
            return next((flow for death in died if (flow := self._flows.of_queue(death.queue)) is not None), None)
        return flow

    def _find(self, event: Delivered, identity: int, flow: Flow, died: list[Death]) -> Hop | None:
        """Return the hop that a delivery belongs to, by the rules at the head of this module."""
        queue = event.queue
        open_hops = self._open_hops(identity, queue)
        if died:
            mark = fingerprint(event.properties.headers)
            open_hops = [hop for hop in open_hops if hop.message.may_be(event.exchange, mark)]
        if event.redelivered and (had := self._newest(identity, queue, _HAD)) is not None:
            return had
        delayed = was_delayed(event.properties.headers)
        if open_hops and (died or not delayed):
            return open_hops[0]
        places = [death.queue for death in died if self._was_held(death)]
        if delayed:
            places.append(EXCHANGE)
        if places:
            died = [death for death in died if not self._was_held(death)]
            if (hop := self._arriving(identity, queue, flow, places, died)) is not None:
                return hop
        if open_hops:
            return open_hops[0]  # published with the `x-delay` of another
        if died:
            return self._further_hop(identity, queue, died, event.received_at)
        if places and (hop := self._arrived_elsewhere(identity, queue, flow)) is not None:
            return hop
        for hop in self._book.closed_hops(identity, queue):
            if hop.state in _AWAITED:
                return hop
        return None

    def _open_hops(self, identity: int, queue: str) -> Sequence[Hop]:
        """Return the open hops of an identity to a queue, first in first, whether they were evicted or not."""
        for hop in self._book.readmit(identity, queue):
            self.judge.expect(hop)
        return self._book.open_hops(identity, queue)

    def _newest(self, identity: int, queue: str, states: frozenset[State]) -> Hop | None:
        return next((hop for hop in reversed(self._book.closed_hops(identity, queue)) if hop.state in states), None)

    def _was_held(self, death: Death) -> bool:
        return death.reason is Reason.EXPIRED and self._flows.delay_queue(death.queue)

    def _arriving(self, identity: int, queue: str, flow: Flow, places: list[str], died: list[Death]) -> Hop | None:
        """Return the hop of a message that was held back at one of these places; `died` are its other deaths.

        None when there is none, or when it died in the queue to which it came: then the hop is there now.
        """
        had = None
        if died and died[-1].reason in AFTER_DELIVERY:
            had = self._newest(identity, died[-1].queue, _DELIVERED)  # it came there before, and has its hop there
        for place in () if had else places:
            waiting = (*self._open_hops(identity, place), *self._book.closed_hops(identity, place))
            hop = next((hop for hop in waiting if hop.state in OPEN or hop.state in _AWAITED), None)
            if hop is not None:
                came_to = died[-1].queue if died else queue
                self.judge.dismiss(hop)
                self._book.move(hop, came_to, hop.flow if hop.flow.takes(came_to) else flow)
                if hop.state in OPEN:
                    self.judge.expect(hop)
                self._arrived.note(hop)
                return None if died else hop
        if died:
            # the delay before the next try; the rejection is no verdict then
            came_back = any(death.queue == queue and death.reason in AFTER_DELIVERY for death in died)
            return self._newest(identity, queue, _DELIVERED) if came_back else None
        return None

    def _arrived_elsewhere(self, identity: int, queue: str, flow: Flow) -> Hop | None:
        """Return a further hop of a message that was held back and has come to another queue, but not yet to this."""
        other = self._arrived.of(identity)
        if other is None:
            return None
        if any(hop.message.id == other.message.id for hop in self._book.closed_hops(identity, queue)):
            return None
        further = Hop(other.message, self._book.next_number(other), queue, flow, other.deadline)
        self._book.add(further)
        self.judge.expect(further)
        return further

    def _further_hop(self, identity: int, queue: str, died: list[Death], at: int) -> Hop | None:
        """Close the hop that the newest known death names; return the message's new hop to the dead-letter queue."""
        for death in died:
            # a dead-letter exchange may route to several queues: the first of their deliveries has closed the hop
            source = self._copied(identity, death, queue)
            if source is None and (source := self._died(identity, death)) is not None:
                source.judged_at = at
                self._book.change(source, State.DEAD_LETTERED, death.reason, event="delivery with x-death")
                self.judge.dismiss(source)
            if source is None:
                source = self._newest(identity, death.queue, frozenset({State.DEAD_LETTERED}))
            if source is not None:
                number = self._book.next_number(source)
                further = Hop(source.message, number, queue, source.flow, source.deadline, State.DELIVERED)
                self._book.add(further)
                return further
        return None

    def _copied(self, identity: int, death: Death, queue: str) -> Hop | None:
        """Return the hop that is known to have died there, and whose copy to this queue has not been seen yet."""
        here = {hop.message.id for hop in (*self._open_hops(identity, queue), *self._book.closed_hops(identity, queue))}
        for hop in self._book.closed_hops(identity, death.queue):
            if hop.state is State.DEAD_LETTERED and hop.message.id not in here:
                return hop
        return None

    def _died(self, identity: int, death: Death) -> Hop | None:
        """Return the hop that met this death: a delivered one first where the death needs a delivery, else last."""
        delivered, waiting = [], []
        for hop in (*self._open_hops(identity, death.queue), *self._book.closed_hops(identity, death.queue)):
            if hop.state in _DELIVERED:
                delivered.append(hop)
            elif hop.state in OPEN or hop.state in _AWAITED:
                waiting.append(hop)
        waiting.sort(key=age)  # a judged one may be older than an open one, and the oldest dies first
        candidates = [*delivered, *waiting] if death.reason in AFTER_DELIVERY else [*waiting, *delivered]
        return candidates[0] if candidates else None

    def _deliver(
        self, hop: Hop, at: int, received_at: int, redelivered: bool, user: str, connection: str, overtakes: bool
    ) -> None:
        """Record a delivery of a hop; an awaited hop is closed by it if the consumer is the flow's receiver."""
        wait = at - hop.message.published_at
        if wait < 0 and at != received_at:
            wait = 0  # its time is an estimate
        hop.attempts += 1
        self._book.touch(hop)
        self._deliveries.append(
            _new(DeliveryRow, (hop.message.id, hop.number, hop.attempts, wait, user, connection, redelivered))
        )
        if hop.state in _HAD:
            hop.wait = wait if hop.wait is None else hop.wait
        elif hop.flow.receives(user, connection):
            in_time = hop.state is State.IN_FLIGHT and wait <= hop.deadline
            hop.wait = wait
            self._book.change(hop, State.DELIVERED if in_time else State.LATE, None, event="delivery")
            self.judge.dismiss(hop)
            if overtakes:
                self.judge.overtake(hop)

    # orphans

    def _orphan(self, event: Delivered, identity: int, flow: Flow) -> None:
        fields = flow.extract(event)
        row = OrphanRow(
            id=self._new_orphan(),
            vhost=event.vhost,
            queue=event.queue,
            exchange=event.exchange,
            routing_key=event.routing_keys[0] if event.routing_keys else "",
            identity=identity,
            message_id=fields.message_id,
            order_id=fields.order_id,
            stage=fields.stage,
            flow=flow.name,
            size=len(event.body),
            user=event.user,
            connection=event.connection,
            redelivered=event.redelivered,
            received_at=event.received_at,
        )
        self._new_orphans[row.id] = row
        overtakes = not event.redelivered and _STREAM not in event.properties.headers
        at = self._times.delivered(row.received_at)
        waiting = _Orphan(row.id, row.received_at, at, row.redelivered, row.user, row.connection, overtakes)
        self._await_publish((identity, event.queue), waiting)

    def _await_publish(self, key: tuple[int, str], orphan: _Orphan) -> None:
        self._orphans.setdefault(key, []).append(orphan)
        self._waiting[orphan.id] = key
        if len(self._waiting) > _MAX_WAITING:
            self._give_up()

    def _give_up(self) -> None:
        """Let the oldest orphan wait no longer."""
        identity, queue = next(iter(self._waiting.values()))
        had = self._newest(identity, queue, _HAD)
        if had is not None:
            self._adopt(had)
        else:
            self._next_orphan((identity, queue))

    def _next_orphan(self, key: tuple[int, str]) -> _Orphan:
        """Take the oldest orphan of a key out of the waiting ones."""
        waiting = self._orphans[key]
        orphan = waiting.pop(0)
        if not waiting:
            del self._orphans[key]
        del self._waiting[orphan.id]
        return orphan

    def _adopt(self, hop: Hop) -> None:
        """Give a hop the oldest delivery that waits for it, if there is one, and the redeliveries right behind."""
        key = (hop.message.identity, hop.queue)
        waiting = self._orphans.get(key, [])
        while waiting:
            orphan = self._next_orphan(key)
            if self._new_orphans.pop(orphan.id, None) is None:
                self._adopted.append(orphan.id)
            self._deliver(
                hop, orphan.at, orphan.received_at, orphan.redelivered, orphan.user, orphan.connection, orphan.overtakes
            )
            if waiting and not waiting[0].redelivered:
                break

    def _flow_of(self, row: StoredHop) -> Flow:
        """Return a stored hop's flow; a flow that is no longer configured goes on with the deadline it had."""
        return self._flows.by_name(row.flow) or retired(row.flow, row.deadline)
