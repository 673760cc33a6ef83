"""Stand-ins for the core's neighbours: a ledger of plain dicts, flows made of plain functions, and short events.

The real ledger is tested against a real file elsewhere; here it has only to keep rows and to give them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from auditor.core.changes import Changes, DeliveryRow, HopRow, MessageRow, OrphanRow, StoredHop
from auditor.core.events import Delivered, Properties, Published
from auditor.core.evicted import OpenHops, Place
from auditor.core.extract import Fields
from auditor.core.flows import Flow, FlowTable
from auditor.core.gaps import Gap
from auditor.core.hops import OPEN, State
from auditor.core.judge import Inspection
from auditor.core.matcher import Matcher
from auditor.core.times import Times

SECOND = 1_000_000
DEADLINE = 10 * SECOND
ORPHAN_WAIT = 5 * SECOND
REINSPECT = 30 * SECOND
OVERTAKE_MARGIN = 3 * SECOND
BEHIND = 3 * SECOND
FAR_BEHIND = 10 * SECOND


class FakeLedger:
    """Keeps rows in dicts, and insists that each is written once."""

    def __init__(self) -> None:
        self.messages: dict[int, MessageRow] = {}
        self.hops: dict[tuple[int, int], HopRow] = {}
        self.deliveries: dict[tuple[int, int, int], DeliveryRow] = {}
        self.orphans: dict[int, OrphanRow] = {}
        self.recalls = 0
        self.max_recalled = 256
        self.page = 10**9
        self.new_message = count(1).__next__
        self.new_orphan = count(1).__next__

    def commit(self, changes: Changes) -> None:
        for message in changes.messages:
            assert message.id not in self.messages
            self.messages[message.id] = message
        assert len({row[:2] for row in changes.hops}) == len(changes.hops), "at most one row a hop and batch"
        for hop in changes.hops:
            assert hop.message in self.messages
            stored = self.hops.get(hop[:2])
            if stored is not None and (stored.queue, stored.flow) != (hop.queue, hop.flow):
                assert not stored.attempts, (
                    "only what was held back comes to another queue, or a hop's number was reused"
                )
            if stored is not None and hop.judged_at is None:
                hop = hop._replace(judged_at=stored.judged_at)  # a verdict that was given stays told
            self.hops[hop[:2]] = hop
        for delivery in changes.deliveries:
            assert delivery[:2] in self.hops
            assert delivery[:3] not in self.deliveries
            self.deliveries[delivery[:3]] = delivery
        for orphan in changes.orphans:
            assert orphan.id not in self.orphans
            self.orphans[orphan.id] = orphan
        for adopted in changes.adopted:
            del self.orphans[adopted]

    def open_hops(self) -> list[StoredHop]:
        return [self._stored(key) for key in sorted(self.hops) if self.hops[key].state in OPEN]

    def open_before(self, place: Place) -> list[OpenHops]:
        found: dict[str, list[int]] = {}
        for row in self.open_hops():
            if (row.message, row.number) < place:
                found.setdefault(row.queue, []).append(row.message)
        return [OpenHops(queue, len(messages), min(messages)) for queue, messages in found.items()]

    def open_page(self, after: Place, limit: int) -> tuple[list[StoredHop], Place | None]:
        limit = min(limit, self.page)
        rows = [row for row in self.open_hops() if (row.message, row.number) > after][:limit]
        return rows, None if len(rows) < limit else (rows[-1].message, rows[-1].number)

    def recall_open(self, identity: int, queue: str, since: int) -> list[StoredHop]:
        rows = self.recall(identity, queue)
        return [row for row in rows if row.state in OPEN and row.message >= since][: self.max_recalled]

    def recent_orphans(self, since: int) -> list[OrphanRow]:
        return [row for _, row in sorted(self.orphans.items()) if row.received_at >= since]

    def recall(self, identity: int, queue: str) -> list[StoredHop]:
        self.recalls += 1
        return [
            self._stored(key)
            for key in sorted(self.hops)
            if self.hops[key].queue == queue and self.messages[key[0]].identity == identity
        ]

    def _stored(self, key: tuple[int, int]) -> StoredHop:
        hop, message = self.hops[key], self.messages[key[0]]
        return StoredHop(
            message=message.id,
            number=hop.number,
            vhost=message.vhost,
            queue=hop.queue,
            exchange=message.exchange,
            flow=hop.flow,
            identity=message.identity,
            priority=message.priority,
            published_at=message.published_at,
            state=hop.state,
            reason=hop.reason,
            deadline=hop.deadline,
            wait=hop.wait,
            attempts=hop.attempts,
            hops=sum(1 for other, _ in self.hops if other == message.id),
        )


def make_flow(name: str = "all", **changes: Any) -> Flow:
    """Make a flow that everything is on, but for what is asked otherwise."""
    values: dict[str, Any] = {
        "name": name,
        "sender": "crm",
        "receiver": "mes",
        "deadline": DEADLINE,
        "publishes": lambda exchange, user, connection: True,
        "takes": lambda queue: True,
        "dead_letters": lambda queue: False,
        "delayed_exchange": lambda exchange: True,
        "delay_queue": lambda queue: False,
        "delay_limit": 0,
        "transactional": False,
        "receives": lambda user, connection: True,
        "extract": lambda event: Fields(message_id=event.properties.message_id),
    }
    return Flow(**{**values, **changes})


class Audit:
    """A matcher with its ledger. Times are seconds here, so that cases are easy to read."""

    def __init__(
        self,
        *flows: Flow,
        ledger: FakeLedger | None = None,
        reinspect: int = REINSPECT,
        max_open_hops: int = 50_000,
        broker_timestamps: bool = False,
    ) -> None:
        self.broker_timestamps = broker_timestamps
        self.flows = FlowTable(flows or [make_flow()])
        self.ledger = ledger or FakeLedger()
        self.reinspect = reinspect
        self.max_open_hops = max_open_hops
        self.watermark = 0.0
        self.start()

    def start(self) -> None:
        """Begin as after a start: with nothing in memory but what the ledger has."""
        self.matcher = Matcher(
            "/",
            self.flows,
            stored=self.ledger,
            new_message=self.ledger.new_message,
            new_orphan=self.ledger.new_orphan,
            orphan_wait=ORPHAN_WAIT,
            reinspect=self.reinspect,
            overtake_margin=OVERTAKE_MARGIN,
            max_open_hops=self.max_open_hops,
            times=Times(behind=BEHIND, far_behind=FAR_BEHIND, broker_timestamps=self.broker_timestamps),
        )
        since = int(self.watermark * SECOND) - ORPHAN_WAIT
        hops = self.ledger.open_hops()[-self.max_open_hops :]
        evicted = self.ledger.open_before((hops[0].message, hops[0].number)) if hops else []
        self.matcher.restore(hops, evicted, self.ledger.recent_orphans(since))

    def see(self, *events: Published | Delivered) -> None:
        for event in events:
            self.matcher.see(event)

    def advance(self, watermark: float, newest: float | None = None, upcoming: float | None = None) -> None:
        self.watermark = watermark
        self.matcher.advance(
            int(watermark * SECOND),
            newest=None if newest is None else int(newest * SECOND),
            upcoming=None if upcoming is None else int(upcoming * SECOND),
        )

    def due(self, horizon: float, *, margin: float = 0) -> list[str]:
        return self.matcher.judge.due(int(horizon * SECOND), int((horizon + margin) * SECOND))

    def inspected(
        self, queue: str, at: float, exists: bool | None = True, ready: int | None = 0, consumers: int | None = 1
    ) -> None:
        self.matcher.judge.inspected(Inspection(queue, int(at * SECOND), exists, ready, consumers))

    def judge(self, queue: str, at: float, **found: Any) -> None:
        """Have a queue inspected at a time, and the verdicts given a second later."""
        self.due(at)
        self.inspected(queue, at, **found)
        self.due(at + 1)

    def gap(self, gap: Gap) -> None:
        self.matcher.judge.gap(gap)

    def commit(self) -> None:
        self.ledger.commit(self.matcher.take())

    def restart(self) -> None:
        self.commit()
        self.start()

    def told(self) -> dict[tuple[int, str], str]:
        """Commit, and say of every hop in words what is claimed: by message and queue, further hops after the first."""
        self.commit()
        found: dict[tuple[int, str], str] = {}
        for _, hop in sorted(self.ledger.hops.items()):
            claim = hop.state if hop.reason is None else f"{hop.state} {hop.reason}"
            key = (hop.message, hop.queue)
            found[key] = f"{found[key]}, {claim}" if key in found else claim
        return found

    def states(self) -> list[State]:
        self.commit()
        return [hop.state for _, hop in sorted(self.ledger.hops.items())]

    def attempts(self) -> list[int]:
        self.commit()
        return [hop.attempts for _, hop in sorted(self.ledger.hops.items())]


def published(
    at: float = 0,
    *queues: str,
    id: str | None = "m",
    body: bytes = b"{}",
    exchange: str = "orders",
    key: str = "key",
    user: str = "crm",
    headers: Mapping[str, Any] | None = None,
    **properties: Any,
) -> Published:
    """A publish event that came at a time in seconds, routed to these queues."""
    return Published(
        vhost="/",
        exchange=exchange,
        routing_keys=(key,),
        routed_queues=queues,
        properties=Properties(headers=headers or {}, message_id=id, **properties),
        body=body,
        node="rabbit@one",
        connection="publisher",
        user=user,
        received_at=int(at * SECOND),
    )


def delivered(
    at: float,
    queue: str,
    *,
    id: str | None = "m",
    body: bytes = b"{}",
    exchange: str = "orders",
    again: bool = False,
    user: str = "mes",
    died: list[tuple[str, str]] | None = None,
    headers: Mapping[str, Any] | None = None,
    **properties: Any,
) -> Delivered:
    """A delivery event that came at a time in seconds; `died` are the (queue, reason) of its x-death, newest first."""
    headers = dict(headers or {})
    if died is not None:
        headers["x-death"] = [{"queue": at_queue, "reason": reason, "count": 1} for at_queue, reason in died]
    return Delivered(
        vhost="/",
        queue=queue,
        exchange=exchange,
        routing_keys=("key",),
        redelivered=again,
        properties=Properties(headers=headers, message_id=id, **properties),
        body=body,
        node="rabbit@one",
        connection="consumer",
        user=user,
        received_at=int(at * SECOND),
    )
