"""The judge: what is claimed of a hop whose deadline has passed.

A passed deadline is no verdict yet. The judge asks for the hop's queue to be inspected (`due`), and decides once the
watermark is past the inspection, so that a delivery that was already on its way can still arrive. Time is that of the
watermark and of its horizon throughout; while they stand still, nobody is judged. What becomes overdue while a look at
its queue is not ripe for verdicts does not wait for those: the queue is looked at again.

Of the evicted hops (`auditor.core.evicted`) a page is read each time the horizon has moved, round and round. They are
held against what was found when their queue was last looked at.

Of a message that is held back on purpose (`auditor.core.delays`) nobody can say after its deadline where it is: it is
`unknown`, and no queue is looked at. Nor can anybody tell one that was rolled back from one that was lost: a flow with
transactions has no `lost`, and `stuck` only as long as the queue holds as many messages as are known to be expected.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import NamedTuple

from auditor.core.book import Book, Hop
from auditor.core.evicted import START
from auditor.core.gaps import Gap
from auditor.core.hops import Reason, State

_MAX_GAPS = 1000  # gaps held against flights; older ones are forgotten, their hops were judged long ago
_MAX_OVERTAKERS = 10_000  # queues; what is forgotten can only withhold an `overtaken`
_MAX_PRIORITIES = 16  # of each queue; a queue without priorities takes any of 256 and cares for none
_SPAN = 1_000_000  # microseconds of deadlines that are looked through together


class Inspection(NamedTuple):
    """What was found when a queue was looked at; None where it could not be seen."""

    queue: str
    at: int  # microseconds since the epoch
    exists: bool | None
    ready: int | None = None  # messages that wait in the queue
    consumers: int | None = None


class _Look(NamedTuple):
    """An inspection that was taken in."""

    inspection: Inspection
    overtakers: dict[int, int]  # as they stood then: priority -> newest epoch delivered


class _Evidence(NamedTuple):
    """What a look at a queue is worth, once everything before it has been seen."""

    inspection: Inspection
    overtakers: dict[int, int]
    held: int  # overdue hops that the queue should hold
    holds_all: bool  # it holds as many messages as there were open hops to it


class _Queue:
    """The hops to one queue whose deadline has passed, and the looks at that queue.

    In memory for as long as there are such hops, evicted ones included.
    """

    __slots__ = ("asked_at", "evicted_in", "evidence", "hops", "judged_at", "looked_at", "looks", "overdue_at")

    def __init__(self) -> None:
        self.hops: dict[Hop, None] = {}  # those in memory
        # not used for verdicts yet, oldest first; a further one is asked for only once the watermark is past the
        # newest, so they are no more than the margin has canaries, and one
        self.looks: list[_Look] = []
        self.evidence: _Evidence | None = None  # of the last verdicts
        self.asked_at: int | None = None  # horizon at which an inspection was asked for and has not come
        self.judged_at: int | None = None  # horizon of the last verdicts
        self.evicted_in = -1  # the last round that met an evicted one
        self.looked_at: int | None = None  # when the newest look was taken
        self.overdue_at = 0  # the newest deadline that has passed, evicted hops included: a look must come after it


class Judge:
    """Gives the verdicts of one vhost. Times and spans are microseconds."""

    def __init__(self, book: Book, *, reinspect: int, overtake_margin: int) -> None:
        """`reinspect`: how often a queue with stuck hops is looked at again. `overtake_margin`: how much later than a
        hop another must have been published to count as having overtaken it."""
        self._book = book
        self._reinspect = reinspect
        self._overtake_margin = overtake_margin
        # dicts, not a heap: nearly every hop is delivered and taken out long before its deadline
        self._expected: dict[int, dict[Hop, None]] = {}  # span of the deadline -> hops
        self._collected_at: int | None = None  # horizon at which they were last looked through
        self._queues: dict[str, _Queue] = {}
        self._round = 0  # through the evicted hops
        self._place = START  # where it goes on
        # queue -> priority -> newest epoch delivered from there; the one that went longest without news comes first
        self._overtakers: OrderedDict[str, dict[int, int]] = OrderedDict()
        self._gaps: list[Gap] = []

    def expect(self, hop: Hop) -> None:
        """Hold a hop to its deadline."""
        if hop.state is State.STUCK:
            self._queues.setdefault(hop.queue, _Queue()).hops[hop] = None
        else:
            self._expected.setdefault(hop.deadline_at // _SPAN, {})[hop] = None

    def evict(self, hop: Hop) -> None:
        """Let go of a hop that is left to the ledger."""
        queue = self._queues.get(hop.queue)
        if queue is not None and hop in queue.hops:
            queue.evicted_in = self._round
        self.dismiss(hop)

    def dismiss(self, hop: Hop) -> None:
        """Let go of a hop that was delivered or dead-lettered."""
        span = hop.deadline_at // _SPAN
        expected = self._expected.get(span)
        if expected is not None and hop in expected:
            del expected[hop]
            if not expected:
                del self._expected[span]
            return
        overdue = self._queues.get(hop.queue)
        if overdue is not None:
            overdue.hops.pop(hop, None)

    def overtake(self, hop: Hop) -> None:
        """Take in that a hop was delivered: what was published to its queue well before it should have been, too."""
        message = hop.message
        epoch = message.epoch
        if epoch is None:
            return
        overtakers = self._overtakers.get(hop.queue)
        if overtakers is None:
            overtakers = self._overtakers[hop.queue] = {}
            if len(self._overtakers) > _MAX_OVERTAKERS:
                self._overtakers.popitem(last=False)
        if epoch > overtakers.get(message.priority, 0):
            overtakers[message.priority] = epoch
            self._overtakers.move_to_end(hop.queue)
            if len(overtakers) > _MAX_PRIORITIES:
                del overtakers[min(overtakers, key=overtakers.__getitem__)]

    def surplus(self, count: int) -> list[Hop]:
        """Return so many hops, as far as there are, whose deadline has passed: of the queues with most, the newest.

        They have had their verdict or soon will, and only a change in their queue can bring another one.
        """
        found: list[Hop] = []
        for queue in sorted(self._queues.values(), key=lambda queue: len(queue.hops), reverse=True):
            found += islice(reversed(queue.hops), count - len(found))
            if len(found) >= count:
                break
        return found

    def gap(self, gap: Gap) -> None:
        """Take in a gap, once: nothing is claimed of a hop whose flight it overlaps, be it that the gap still lasts."""
        self._gaps = [*self._gaps[-_MAX_GAPS + 1 :], gap]

    def inspected(self, inspection: Inspection) -> None:
        """Take in the inspection that `due` asked for."""
        queue = self._queues.get(inspection.queue)
        if queue is not None:
            # who overtakes later may do so before the delivery of the overtaken one is read
            queue.looks.append(_Look(inspection, dict(self._overtakers.get(inspection.queue, ()))))
            queue.looked_at = inspection.at
            queue.asked_at = None

    def due(self, horizon: int, watermark: int) -> list[str]:
        """Give the verdicts that are ripe; return the queues to inspect for the others.

        A queue may be looked at as soon as the watermark is past the deadline: the margin matters only afterwards, when
        all that was delivered before the look must have been seen.
        """
        moved = horizon != self._collected_at
        if moved:
            self._collected_at = horizon
            self._collect_overdue(horizon, watermark)
        for queue in self._queues.values():
            while queue.looks and queue.looks[0].inspection.at < horizon:
                # each of them: only the older one may have found the queue empty
                self._judge(queue, queue.looks.pop(0), horizon)
        if moved:
            self._judge_evicted(horizon, watermark)
        wanted = []
        for name, queue in list(self._queues.items()):
            if not queue.hops and queue.evicted_in < self._round - 1:
                del self._queues[name]
            elif self._wants_look(queue, horizon):
                queue.asked_at = horizon
                wanted.append(name)
        return wanted

    def _collect_overdue(self, horizon: int, watermark: int) -> None:
        last = watermark // _SPAN
        for span in [span for span in self._expected if span <= last]:
            expected = self._expected[span]
            for hop in [hop for hop in expected if hop.deadline_at < watermark]:
                if hop.delayed:
                    # no look at a queue lies between: a delivery on its way is waited for here
                    if hop.deadline_at < horizon:
                        del expected[hop]
                        self._sentence(hop, *self._never_arrived(hop, horizon), horizon)
                    continue
                del expected[hop]
                queue = self._queues.setdefault(hop.queue, _Queue())
                queue.hops[hop] = None
                queue.overdue_at = max(queue.overdue_at, hop.deadline_at)
            if not expected:
                del self._expected[span]

    def _wants_look(self, queue: _Queue, horizon: int) -> bool:
        if queue.asked_at is not None:
            return horizon - queue.asked_at > self._reinspect  # asked, and never answered: ask again
        if queue.looked_at is None or queue.looked_at < queue.overdue_at:
            return True
        return not queue.looks and (queue.judged_at is None or horizon - queue.judged_at >= self._reinspect)

    def _judge(self, queue: _Queue, look: _Look, horizon: int) -> None:
        inspection, overtakers = look
        # of the evicted ones all are counted: most were stuck by then, and too many can only withhold a claim
        held = len(queue.hops) + self._book.evicted(inspection.queue)
        expected = self._book.expected(inspection.queue, inspection.at)
        holds_all = inspection.ready is not None and inspection.ready >= expected
        queue.evidence = evidence = _Evidence(inspection, overtakers, held, holds_all)
        queue.judged_at = horizon
        for hop in list(queue.hops):
            if hop.deadline_at > inspection.at:
                continue  # its deadline passed after this look
            state, reason = self._verdict(hop, evidence)
            if (state, reason) != (hop.state, hop.reason):
                self._sentence(hop, state, reason, horizon)
            if state is not State.STUCK:
                del queue.hops[hop]

    def _judge_evicted(self, horizon: int, watermark: int) -> None:
        """Judge the next page of the evicted hops, by the evidence that was found for those in memory."""
        hops, place = self._book.evicted_page(self._place) if self._book.evicted() else ([], None)
        for hop in hops:
            if hop.deadline_at >= watermark:
                continue
            if hop.delayed:
                if hop.deadline_at < horizon:
                    self._book.admit(hop)
                    self._sentence(hop, *self._never_arrived(hop, horizon), horizon)
                continue
            queue = self._queues.setdefault(hop.queue, _Queue())
            queue.evicted_in = self._round
            if queue.evidence is None or queue.evidence.inspection.at < hop.deadline_at:
                queue.overdue_at = max(queue.overdue_at, hop.deadline_at)
                continue
            state, reason = self._verdict(hop, queue.evidence)
            if (state, reason) != (hop.state, hop.reason):
                self._book.admit(hop)
                self._sentence(hop, state, reason, horizon)
                if state is State.STUCK:
                    queue.hops[hop] = None
        if place is None:
            self._round += 1
        self._place = START if place is None else place

    def _sentence(self, hop: Hop, state: State, reason: Reason, horizon: int) -> None:
        hop.judged_at = horizon
        self._book.change(hop, state, reason, event="verdict")

    def _never_arrived(self, hop: Hop, horizon: int) -> tuple[State, Reason]:
        gap = self._gap_over(hop, horizon)
        return State.UNKNOWN, Reason.DELAYED if gap is None else gap.reason.of_hop

    def _verdict(self, hop: Hop, evidence: _Evidence) -> tuple[State, Reason]:
        """Return what is claimed of an overdue hop."""
        state, reason = self._finding(hop, evidence)
        if hop.flow.transactional and state is not State.UNKNOWN:
            held = state is State.STUCK and (hop.state is State.STUCK or evidence.holds_all)
            if not held:
                return State.UNKNOWN, Reason.TRANSACTION
        return state, reason

    def _finding(self, hop: Hop, evidence: _Evidence) -> tuple[State, Reason]:
        """Return what the evidence says of an overdue hop whose publish was not taken back, one branch a claim."""
        inspection = evidence.inspection
        gap = self._gap_over(hop, inspection.at)
        if gap is not None:
            if hop.state is State.STUCK and inspection.ready is not None and inspection.ready >= evidence.held:
                pass  # stuck before the gap, and the queue still holds as many as are known to be stuck there
            else:
                return State.UNKNOWN, gap.reason.of_hop
        if inspection.exists is False:
            return State.LOST, Reason.QUEUE_MISSING
        if inspection.ready == 0:
            return State.LOST, Reason.QUEUE_EMPTY
        overtaker = evidence.overtakers.get(hop.message.priority)
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
