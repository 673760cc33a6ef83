"""The judge: what is claimed of a hop whose deadline has passed.

A passed deadline is no verdict yet. The judge asks for the hop's queue to be inspected (`due`), and decides once the
watermark is past the inspection, so that a delivery that was already on its way can still arrive. Time is the horizon
of the watermark throughout; while that stands still, nobody is judged.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile
from typing import NamedTuple

from auditor.core.book import Book, Hop
from auditor.core.gaps import Gap
from auditor.core.hops import Reason, State

_MAX_GAPS = 1000  # gaps held against flights; older ones are forgotten, their hops were judged long ago
_MAX_OVERTAKERS = 10_000  # queues and priorities; what is forgotten can only withhold an `overtaken`


class Inspection(NamedTuple):
    """What was found when a queue was looked at; None where it could not be seen."""

    queue: str
    at: int  # microseconds since the epoch
    exists: bool | None
    ready: int | None = None  # messages that wait in the queue
    consumers: int | None = None


class _Queue:
    """The hops to one queue whose deadline has passed, and the newest look at that queue."""

    __slots__ = ("asked_at", "hops", "inspection", "judged_at")

    def __init__(self) -> None:
        self.hops: dict[Hop, None] = {}
        self.inspection: Inspection | None = None  # not used for a verdict yet
        self.asked_at: int | None = None  # horizon at which an inspection was asked for and has not come
        self.judged_at: int | None = None  # horizon of the last verdicts


class Judge:
    """Gives the verdicts of one vhost. Times and spans are microseconds."""

    def __init__(self, book: Book, *, reinspect: int, overtake_margin: int) -> None:
        """`reinspect`: how often a queue with stuck hops is looked at again. `overtake_margin`: how much later than a
        hop another must have been published to count as having overtaken it."""
        self._book = book
        self._reinspect = reinspect
        self._overtake_margin = overtake_margin
        # dicts, not heaps: nearly every hop is delivered and taken out long before its deadline
        self._expected: dict[int, dict[Hop, None]] = {}  # deadline -> hops, oldest first
        self._collected_at: int | None = None  # horizon at which they were last looked through
        self._queues: dict[str, _Queue] = {}
        # queue, priority -> newest epoch delivered from there; the one that went longest without news comes first
        self._overtakers: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._gaps: list[Gap] = []

    def expect(self, hop: Hop) -> None:
        """Hold a hop to its deadline."""
        if hop.state is State.STUCK:
            self._queues.setdefault(hop.queue, _Queue()).hops[hop] = None
        else:
            self._expected.setdefault(hop.deadline, {})[hop] = None

    def dismiss(self, hop: Hop) -> None:
        """Let go of a hop that was delivered or dead-lettered."""
        expected = self._expected.get(hop.deadline)
        if expected is not None:
            expected.pop(hop, None)
        overdue = self._queues.get(hop.queue)
        if overdue is not None:
            overdue.hops.pop(hop, None)

    def overtake(self, hop: Hop) -> None:
        """Take in that a hop was delivered: what was published to its queue well before it should have been, too."""
        epoch = hop.message.epoch
        key = (hop.queue, hop.message.priority)
        if epoch is None or epoch <= self._overtakers.get(key, 0):
            return
        self._overtakers[key] = epoch
        self._overtakers.move_to_end(key)
        if len(self._overtakers) > _MAX_OVERTAKERS:
            self._overtakers.popitem(last=False)

    def gap(self, gap: Gap) -> None:
        """Take in a gap, once: nothing is claimed of a hop whose flight it overlaps, be it that the gap still lasts."""
        self._gaps = [*self._gaps[-_MAX_GAPS + 1 :], gap]

    def inspected(self, inspection: Inspection) -> None:
        """Take in the inspection that `due` asked for."""
        queue = self._queues.get(inspection.queue)
        if queue is not None:
            queue.inspection = inspection
            queue.asked_at = None

    def due(self, horizon: int) -> list[str]:
        """Give the verdicts that are ripe; return the queues to inspect for the others."""
        self._collect_overdue(horizon)
        wanted = []
        for name, queue in list(self._queues.items()):
            if queue.inspection is not None and queue.inspection.at < horizon:
                self._judge(queue, queue.inspection, horizon)
                queue.inspection = None
                queue.judged_at = horizon
            if not queue.hops:
                del self._queues[name]
            elif queue.inspection is None and self._wants_inspection(queue, horizon):
                queue.asked_at = horizon
                wanted.append(name)
        return wanted

    def _collect_overdue(self, horizon: int) -> None:
        if horizon == self._collected_at:
            return
        self._collected_at = horizon
        for expected in self._expected.values():
            # in one pass: finding the first of a dict takes longer the more were taken out before it
            overdue = list(takewhile(lambda hop: hop.deadline_at < horizon, expected))
            for hop in overdue:
                del expected[hop]
                self._queues.setdefault(hop.queue, _Queue()).hops[hop] = None

    def _wants_inspection(self, queue: _Queue, horizon: int) -> bool:
        if queue.asked_at is not None:
            return horizon - queue.asked_at > self._reinspect  # asked, and never answered: ask again
        newest = next(reversed(queue.hops))
        if newest.state is State.IN_FLIGHT or queue.judged_at is None:
            return True
        return horizon - queue.judged_at >= self._reinspect

    def _judge(self, queue: _Queue, inspection: Inspection, horizon: int) -> None:
        held = len(queue.hops)
        for hop in list(queue.hops):
            if hop.deadline_at > inspection.at:
                continue  # its deadline passed after the look at the queue
            state, reason = self._verdict(hop, inspection, held)
            if (state, reason) != (hop.state, hop.reason):
                hop.judged_at = horizon
                self._book.change(hop, state, reason, event="verdict")
            if state is not State.STUCK:
                del queue.hops[hop]

    def _verdict(self, hop: Hop, inspection: Inspection, held: int) -> tuple[State, Reason]:
        """Return what is claimed of an overdue hop, one branch a claim."""
        gap = self._gap_over(hop, inspection.at)
        if gap is not None:
            if hop.state is State.STUCK and inspection.ready is not None and inspection.ready >= held:
                pass  # stuck before the gap, and the queue still holds as many as are known to be stuck there
            else:
                return State.UNKNOWN, gap.reason.of_hop
        if inspection.exists is False:
            return State.LOST, Reason.QUEUE_MISSING
        if inspection.ready == 0:
            return State.LOST, Reason.QUEUE_EMPTY
        overtaker = self._overtakers.get((hop.queue, hop.message.priority))
        # the earliest that the one was published against the latest for the other, however far behind we read
        if overtaker is not None and overtaker > hop.message.published_at + self._overtake_margin:
            return State.LOST, Reason.OVERTAKEN
        if inspection.consumers == 0:
            return State.STUCK, Reason.NO_CONSUMER
        return State.STUCK, Reason.WAITING

    def _gap_over(self, hop: Hop, until: int) -> Gap | None:
        # a publish that was read late was published earlier: its epoch says how much earlier at most
        message = hop.message
        since = message.published_at if message.epoch is None else min(message.epoch, message.published_at)
        return next((gap for gap in reversed(self._gaps) if gap.covers(since, until)), None)
