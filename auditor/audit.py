"""The audit of one vhost: contents in, the ledger's rows out.

All of it runs on the audit thread, which alone owns matcher and ledger, step by step; the event loop hands in plain
values and gets plain values back. One step is

    decode -> match -> judge -> commit, all of it in one transaction

and only when it has returned may the contents be acknowledged. A commit that fails is kept and tried again (`flush`);
no step is taken before it is through, so that matcher and ledger never differ.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import count, takewhile
from operator import attrgetter
from typing import NamedTuple

from auditor import __version__
from auditor.core.backlog import Backlog
from auditor.core.changes import Changes
from auditor.core.completeness import Completeness, Missing, Reading
from auditor.core.events import Published, TraceEvent
from auditor.core.evicted import OpenHops
from auditor.core.flows import FlowTable
from auditor.core.gaps import Gap, GapReason, Gaps
from auditor.core.judge import Inspection
from auditor.core.matcher import Matcher
from auditor.core.seen import Seen
from auditor.core.stages import Orders
from auditor.core.tally import Tally
from auditor.core.times import Times
from auditor.core.watermark import Watermark
from auditor.errors import LedgerDamaged
from auditor.ledger.writer import Compared, GapRow, Ledger, Status, Undecodable
from auditor.tap import decode
from auditor.tap.canary import Canary, Sighting
from auditor.tap.digest import digest
from auditor.tap.wire import Content

log = logging.getLogger(__name__)

_BEHIND = 3  # canary intervals; an event that came so long after the last canary was not read when it happened
_OVERTAKE_MARGIN = 3  # canary intervals; publishes of several channels may reach a queue in another order than us
_MAX_HEADER = 64 * 1024  # bytes kept of an undecodable event
_ELSEWHERE = frozenset({GapReason.LEDGER_DAMAGED, GapReason.OTHER_LEDGER})  # what was seen is in another ledger
_MAX_GAPS = 64  # gaps that may still get a size: those of the last hour, when each is a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The times an audit keeps, in microseconds."""

    canary_interval: int
    canary_timeout: int
    orphan_wait: int
    reinspect: int


@dataclass(slots=True)
class Totals:
    """What was seen of a vhost since its ledger began; for the `status` table."""

    published: int = 0
    delivered: int = 0
    undecodable: int = 0
    orphans: int = 0
    traced: int = 0  # publishes, those of canaries left out, whether they could be read or not
    last_event_at: int | None = None


class Ids:
    """Hands out the ids of new rows, counting on from the ledger's highest; shared by all vhosts."""

    def __init__(self, ledger: Ledger) -> None:
        self.message = count(ledger.next_message_id).__next__
        self.orphan = count(ledger.next_orphan_id).__next__
        self.gap = count(ledger.next_gap_id).__next__


class Notice(NamedTuple):
    """The tap found that events may be missing."""

    reason: GapReason
    at: int
    over: bool = False  # nothing is missing after `at`
    suspected: bool = False  # if all canaries come back, nothing is missing at all


class Connection(NamedTuple):
    """How things stand with the broker; for the `status` table only."""

    connected: bool
    settled: bool = False  # the connection is gone, and every acknowledgement was confirmed before
    broker: str = ""  # its version
    problem: str | None = None  # in words, for people
    queue_depth: int | None = None  # events that wait in the trace queue, at the last look


class Step(NamedTuple):
    """What one step takes in."""

    contents: Sequence[Content]
    rescued: Sequence[TraceEvent]  # events that did not come by the tap; older than the contents
    sent: Sequence[Sighting]
    inspections: Sequence[Inspection]
    notices: Sequence[Notice]
    connection: Connection
    now: int
    counts: Sequence[Reading] = ()  # the broker's counters
    uncounted: str | None = None  # why there are none, in words
    cut: Sequence[str] = ()  # nodes to which the connection for canaries was lost
    away: Set[str] = frozenset()  # nodes through which no canary can be sent


class Outcome(NamedTuple):
    """What the event loop needs to know of a step."""

    inspect: list[str]  # queues to look at
    watermark: int | None
    newest: int | None  # the publish time of the newest canary of any node that came back
    silent: dict[str, int]  # nodes with canaries that are still out, and when the oldest of them was published
    gap: Gap | None  # the gap that lasts


class VhostAudit:
    """See the module's text. Not to be touched from two threads."""

    def __init__(
        self,
        vhost: str,
        *,
        ledger: Ledger,
        ids: Ids,
        flows: FlowTable,
        canary: Canary,
        pace: Pace,
        max_open_hops: int,
        now: int,
        nodes: Sequence[str] = ("",),
        max_bytes: int = sys.maxsize,
        broker_timestamps: bool = False,
        sees_all: bool = True,
        orders: Orders | None = None,
        tally: Tally | None = None,
    ) -> None:
        """Take up where the ledger stands; `now` is the time of this start, `max_open_hops` as the matcher has it.

        `nodes` are those that canaries go through, `max_bytes` the bound of the trace queue, and `broker_timestamps`
        says that the broker itself writes the publish time into each message. `sees_all`: the trace queue gets every
        publish of the vhost, so that they can be compared with those counted. All vhosts share `orders` and `tally`.
        """
        self._vhost = vhost
        self._ledger = ledger
        self._ids = ids
        self._canary = canary
        self._orders = orders
        self._tally = tally
        known = ledger.status(vhost)
        self._watermark = Watermark(2 * pace.canary_interval, known.watermark if known else None, nodes)
        self._backlog = Backlog(max_bytes)
        self._nodes = nodes
        self._away: Set[str] = frozenset()
        self._matcher = Matcher(
            vhost,
            flows,
            stored=_Stored(ledger, vhost),
            new_message=ids.message,
            new_orphan=ids.orphan,
            orphan_wait=pace.orphan_wait,
            reinspect=pace.reinspect,
            overtake_margin=_OVERTAKE_MARGIN * pace.canary_interval,
            max_open_hops=max_open_hops,
            times=Times(
                behind=_BEHIND * pace.canary_interval,
                far_behind=2 * pace.canary_timeout,
                broker_timestamps=broker_timestamps,
            ),
        )
        self._totals = Totals()
        if known is not None:
            self._totals = Totals(
                known.published, known.delivered, known.undecodable, known.orphans, known.traced, known.last_event_at
            )
        self._seen = Seen(ledger.unconfirmed(vhost))
        self._in_order = False  # whether all has come that comes again, so that what is read now is in its old order
        self._put_off: list[Sighting] = []  # canaries that came before that
        self._compared = Compared(ledger.span(vhost), None)  # as the ledger has it
        self._completeness = Completeness(2 * pace.canary_interval, self._compared.span if sees_all else None)
        self._canary_key = f"publish.{canary.exchange}".encode()
        self._known_gaps: deque[Gap] = deque(maxlen=_MAX_GAPS)
        self._gaps = Gaps()
        self._first: int | None = now if known is None else None  # when the first start was, until it is noted
        self._restore(pace, max_open_hops, now)
        self._pending: Callable[[], None] | None = None

    def _restore(self, pace: Pace, max_open_hops: int, now: int) -> None:
        hops = self._ledger.open_hops(self._vhost, max_open_hops)
        evicted: list[OpenHops] = []
        if len(hops) == max_open_hops:
            before = self._ledger.open_before(self._vhost, (hops[0].message, hops[0].number))
            evicted = [OpenHops(*row) for row in before]
        seen_until = self._watermark.at or 0
        orphans = self._ledger.recent_orphans(self._vhost, since=seen_until - pace.orphan_wait)
        self._matcher.restore(hops, evicted, orphans)
        oldest = hops[:1]
        if evicted:
            oldest, _ = self._ledger.open_page(self._vhost, (min(queue.low for queue in evicted), -1), 1)
        since = min((hop.published_at for hop in (*oldest, *hops)), default=seen_until)
        for row in self._ledger.gaps(self._vhost, since=since):
            gap = Gap(row.id, GapReason(row.reason), row.from_at, now, row.to_at, missing=row.missing)
            # canaries in the backlog prove nothing of what another ledger has
            gap.began = gap.reason in _ELSEWHERE
            self._known_gaps.append(gap)
            self._matcher.judge.gap(gap)
            if gap.to_at is None:
                self._gaps = Gaps(gap)
        self._advance()

    @property
    def watermark(self) -> int | None:
        """How far it has seen, microseconds; None: no canary has ever come back. May be asked from anywhere."""
        return self._watermark.at

    def step(self, step: Step) -> Outcome:
        """Take one step; LedgerError when it could not be committed: call `flush` until it can."""
        assert self._pending is None, "the last step is not committed"
        gaps: dict[int, Gap] = {}
        if self._first is not None:
            # from the start on, not from this step: the first canary may be on its way by now, and it ends the gap
            self._notice(Notice(GapReason.FIRST_START, self._first), gaps)
            self._first = None
        for notice in sorted(step.notices, key=attrgetter("over")):  # what lasts takes in what is over
            if not notice.over:
                self._notice(notice, gaps, began=notice.reason in _ELSEWHERE)
            elif self._watermark.at is not None and self._watermark.at < notice.at:
                self._missed(notice.reason, self._watermark.at, notice.at, gaps)
        self._leave_out(step.away, step.now, gaps)
        for sighting in step.sent:
            self._watermark.sent(sighting.node, sighting.number, sighting.at)
            self._backlog.sent(sighting.number, self._watermark.at)
        if step.cut or not step.connection.connected:
            self._gaps.confirm()
        self._watermark.forget(*step.cut)  # those sent last, too: the connection took them along
        if not step.connection.connected:
            self._watermark.forget(*self._nodes)
            self._backlog.forget()
            self._seen.reconnect()
            self._in_order = False
            self._put_off.clear()
            if step.connection.settled:
                self._seen.settle()
        self._advance()
        for inspection in step.inspections:
            self._matcher.judge.inspected(inspection)
        for event in step.rescued:
            if isinstance(event, Published) and event.exchange != self._canary.exchange:
                self._totals.traced += 1
            self._take(event, gaps)
        self._backlog.read(sum(len(content.body) for content in step.contents))
        undecodable = self._take_in(step.contents, gaps)
        for reading in step.counts:
            self._completeness.read(reading)
        if step.contents:
            self._completeness.arrived(step.contents[-1].received_at, self._totals.traced)
        compared = Compared(self._completeness.span, step.uncounted)
        watermark, horizon = self._watermark.at, self._watermark.horizon
        inspect: list[str] = []
        if watermark is not None and horizon is not None and not self._gaps.suspected:
            inspect = self._matcher.judge.due(horizon, watermark)
        changes = self._matcher.take()
        if self._orders is not None:
            changes.entries = self._orders.see(changes.messages)
        self._totals.orphans += len(changes.orphans) - len(changes.adopted)
        self._totals.undecodable += len(undecodable)
        if step.contents:
            self._totals.last_event_at = step.contents[-1].received_at
        status = self._status(step)
        write = partial(
            self._ledger.commit,
            changes,
            status=status,
            undecodable=undecodable,
            gaps=[
                GapRow(gap.id, self._vhost, gap.reason, gap.from_at, gap.to_at, gap.missing) for gap in gaps.values()
            ],
            unconfirmed=self._seen.unconfirmed if step.contents or step.connection.settled else None,
            compared=None if compared == self._compared else compared,
        )
        self._pending = partial(self._commit, write, changes, status, undecodable)
        self._compared = compared
        self.flush()
        seen = self._watermark
        return Outcome(inspect, seen.at, seen.newest, seen.silent(), self._gaps.open)

    def flush(self) -> None:
        """Commit what the last step could not; LedgerError when it still cannot be."""
        if self._pending is not None:
            self._pending()
            self._pending = None

    def tell(self, problem: str | None, now: int) -> None:
        """Have the ledger's status say what keeps it from being written; LedgerError if even that cannot be."""
        self._ledger.tell(self._vhost, problem, now)

    def _commit(
        self, write: Callable[[], None], changes: Changes, status: Status, undecodable: list[Undecodable]
    ) -> None:
        began = time.perf_counter()
        write()
        if self._tally is not None:
            self._tally.committed(changes, status, undecodable, time.perf_counter() - began)

    def _take_in(self, contents: Sequence[Content], gaps: dict[int, Gap]) -> list[Undecodable]:
        undecodable = []
        marks = [digest(content) for content in contents]
        redelivered = sum(1 for _ in takewhile(attrgetter("redelivered"), contents))
        repeated = self._seen.take(marks, redelivered)
        for number, content in enumerate(contents[repeated:], repeated):
            if number == redelivered:
                self._come_again(gaps)
            if content.routing_key.startswith(b"publish.") and content.routing_key != self._canary_key:
                self._totals.traced += 1
            event = decode.decode(content)
            if isinstance(event, decode.Undecodable):
                undecodable.append(self._kept(content, event.cause))
                continue
            try:
                self._take(event, gaps)
            except LedgerDamaged:
                raise
            except Exception as error:
                # a bug of ours that one event lays bare must not become a crash at every start: it is kept, and said
                log.exception("An event could not be matched", extra={"vhost": self._vhost})
                undecodable.append(self._kept(content, f"could not be matched: {type(error).__name__}: {error}"))
        return undecodable

    def _take(self, event: TraceEvent, gaps: dict[int, Gap]) -> None:
        sighting = self._canary.sight(event)
        if sighting is not None:
            if self._in_order:
                self._sighted(sighting, gaps)
            else:
                self._put_off.append(sighting)
            return
        self._matcher.see(event)
        if isinstance(event, Published):
            self._totals.published += 1
        else:
            self._totals.delivered += 1

    def _come_again(self, gaps: dict[int, Gap]) -> None:
        """Take in that all has come that comes again: a quorum queue hands that out before anything else.

        It need not come in its old order: what was handed out last and given back is behind what was given back
        earlier. So a canary among it tells only now that all before it has been read.
        """
        self._in_order = True
        for sighting in self._put_off:
            self._sighted(sighting, gaps)
        self._put_off.clear()

    def _sighted(self, sighting: Sighting, gaps: dict[int, Gap]) -> None:
        before = self._watermark.at_of(sighting.node)
        missing = self._watermark.returned(sighting.node, sighting.number, sighting.at)
        overflowed = self._backlog.overflowed(sighting.number)
        if overflowed is not None:
            self._missed(GapReason.OVERFLOW, _earliest(before, *overflowed), sighting.at, gaps)
        elif missing:
            self._missed(GapReason.BLIND, before, sighting.at, gaps)
        self._advance()
        if self._watermark.at is not None:
            gap = self._gaps.sighted(self._watermark.at)
            if gap is not None:
                gaps[gap.id] = gap
            for lacking in self._completeness.sighted(self._watermark.at, self._totals.traced):
                sized = self._gap_of(lacking)
                gaps[sized.id] = sized

    def _gap_of(self, missing: Missing) -> Gap:
        """Give the gap in which publishes are missing its size: one that is known of in that time, or a new one."""
        log.warning(
            "The broker counted %d publishes that were not seen", missing.publishes, extra={"vhost": self._vhost}
        )
        for gap in reversed(self._known_gaps):
            # what was before the first start was before the first count; an incomplete one was found by its size
            known = gap.from_at is not None and gap.reason is not GapReason.INCOMPLETE
            if known and gap.covers(missing.from_at, missing.to_at):
                break
        else:
            gap = Gap(self._ids.gap(), GapReason.INCOMPLETE, missing.from_at, missing.to_at, missing.to_at)
            self._add(gap)
        gap.missing = (gap.missing or 0) + missing.publishes
        return gap

    def _add(self, gap: Gap) -> None:
        self._known_gaps.append(gap)
        self._matcher.judge.gap(gap)

    def _missed(self, reason: GapReason, since: int | None, at: int, gaps: dict[int, Gap]) -> None:
        last = self._gaps.proven
        gap = self._gaps.missed(reason, since, at, self._ids.gap)
        if gap is None:
            gap = self._gaps.open
        elif gap is not last:
            self._add(gap)
        assert gap is not None
        gaps[gap.id] = gap

    def _leave_out(self, away: Set[str], now: int, gaps: dict[int, Gap]) -> None:
        """Go by the nodes that can be reached; what happens through the others is not seen for as long as it lasts."""
        if away:
            # at each step: a canary of the other nodes must not end the gap, nor move its beginning
            self._notice(Notice(GapReason.BLIND, now), gaps, began=True)
        if away != self._away:
            self._away = away
            self._watermark.leave_out(away)

    def _advance(self) -> None:
        """Let the matcher know what the canaries tell of the time of the next event."""
        watermark = self._watermark
        if watermark.at is not None:
            # while blind, canaries that are out may be lost, and then they tell nothing
            upcoming = watermark.upcoming if self._gaps.open is None else None
            self._matcher.advance(watermark.at, newest=watermark.newest, upcoming=upcoming)

    def _notice(self, notice: Notice, gaps: dict[int, Gap], *, began: bool = False) -> None:
        lasting = self._gaps.open
        since = self._watermark.at
        gap = self._gaps.notice(notice.reason, notice.at, since, self._ids.gap, suspected=notice.suspected)
        gap.began = gap.began or began
        gaps[gap.id] = gap
        if gap is not lasting:
            self._add(gap)

    def _kept(self, content: Content, cause: str) -> Undecodable:
        return Undecodable(
            self._vhost,
            content.routing_key.decode("utf-8", "backslashreplace"),
            cause,
            content.properties[:_MAX_HEADER],
            len(content.body),
            blake2b(content.body, digest_size=16).digest(),
            content.received_at,
        )

    def _status(self, step: Step) -> Status:
        return Status(
            vhost=self._vhost,
            connected=step.connection.connected,
            watermark=self._watermark.at,
            last_event_at=self._totals.last_event_at,
            updated_at=step.now,
            queue_depth=step.connection.queue_depth,
            open_hops=self._matcher.open_hops,
            published=self._totals.published,
            delivered=self._totals.delivered,
            undecodable=self._totals.undecodable,
            orphans=self._totals.orphans,
            traced=self._totals.traced,
            pid=os.getpid(),
            version=__version__,
            broker=step.connection.broker,
            problem=step.connection.problem,
        )


def _earliest(*times: int | None) -> int | None:
    """Return the earliest time; None, since ever, is earlier than any."""
    known = [at for at in times if at is not None]
    return min(known) if len(known) == len(times) else None


class _Stored:
    """The hops that the ledger has of one vhost, as the core asks for them."""

    def __init__(self, ledger: Ledger, vhost: str) -> None:
        self.recall = partial(ledger.recall, vhost)
        self.recall_open = partial(ledger.recall_open, vhost)
        self.open_page = partial(ledger.open_page, vhost)
