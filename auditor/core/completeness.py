"""Completeness: was every publish that the broker counted seen?

The broker counts publishes itself, apart from the firehose: read now and then, its counter is compared with the trace
events of publishes that were seen. The two are not in step. The counter is taken at some instant of which only bounds
are known, and events arrive later. So what is followed is a level, counter less events, and each reading bounds it:

- from above, because the events that had arrived before that instant had happened by then;
- from below, because all that had happened by then stand before a canary that is published a margin later.

While everything is seen, the level stays. It rises by what is lost, and falls by what is traced and not counted. So a
lower bound above an earlier upper one proves a loss, and its size is the difference at least. In a pause of the traffic
the bounds meet and it is exact; under traffic the narrowest of many readings come near to that.

What could look like a loss and is none:

- Counters begin again with a node or at an operator's wish, and are short while a node of a cluster does not answer:
  the level falls, and a new span begins. A node that comes or goes begins one too.
- A publish within a transaction is traced at once and counted when it is committed: until then the level is too low.
  While channels use transactions, the upper bound is not lowered and nothing is claimed.
- A reading may be off for an instant. So the bounds are those of a few readings in a row, taken together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

IN_A_ROW = 3
"""Readings that must agree before anything is concluded from them."""

_ARRIVALS = 1024  # steps of the audit that are remembered: a minute at a batch every 50 ms
_PENDING = 64  # readings that wait for their canary; more of them tell nothing that these do not


class Reading(NamedTuple):
    """The broker's counter of publishes to a vhost, those of canaries left out; times in microseconds."""

    counter: int
    canaries: int  # the counter of what was published to the canaries' exchange: falls when counters begin again
    nodes: str  # the nodes that counted
    taken_from: int  # it holds everything that was published before,
    taken_to: int  # and nothing that was published after
    transactional: bool  # whether channels of the vhost use transactions


class Span(NamedTuple):
    """How a span of time over which the counters went on compares; kept over restarts of the auditor."""

    since_at: int
    compared_at: int  # when the newest reading that was compared was taken
    counted: int  # publishes that the broker counted between the two
    seen_least: int  # trace events of publishes that were seen between them: so many at least,
    seen_most: int  # and so many at most; in a pause of the traffic both are the same
    missing: int  # publishes that are proven to be missing among those seen
    # what it takes to go on:
    counter: int  # the newest reading
    canaries: int
    nodes: str
    lowest: int  # bounds of the level
    highest: int
    highest_at: int  # when the upper one was last found


class Missing(NamedTuple):
    """So many publishes, at least, were counted between two times and not seen."""

    publishes: int
    from_at: int
    to_at: int


class _Bounds(NamedTuple):
    """What a reading says of the level."""

    reading: Reading
    lowest: int
    highest: int


class Completeness:
    """Compares the broker's counter with what was seen of one vhost. Times are microseconds since the epoch.

    `seen` is always the number of trace events of publishes since the ledger began, those of canaries left out.
    """

    def __init__(self, margin: int, span: Span | None = None) -> None:
        """Go on with the span that the ledger has.

        `margin`: how much later than an event a canary must be published to be sure to come behind it.
        """
        self._margin = margin
        self._span = span
        self._arrivals: deque[tuple[int, int]] = deque(maxlen=_ARRIVALS)  # time of arrival, events seen by then
        self._pending: deque[tuple[Reading, int]] = deque()  # with the events that had arrived before it
        self._recent: deque[_Bounds] = deque(maxlen=IN_A_ROW)

    @property
    def span(self) -> Span | None:
        """How the present span compares; None before its first comparison."""
        return self._span

    def arrived(self, at: int, seen: int) -> None:
        """Take in how many events had arrived."""
        self._arrivals.append((at, seen))

    def read(self, reading: Reading) -> None:
        """Take in a reading; it is compared when a canary published after it has come back."""
        if len(self._pending) == _PENDING:
            return
        least = next((seen for at, seen in reversed(self._arrivals) if at <= reading.taken_from), None)
        if least is not None:
            self._pending.append((reading, least))

    def sighted(self, at: int, seen: int) -> list[Missing]:
        """Take in that the canary published `at` came back after so many events.

        Returns what is now proven to be missing, each loss once.
        """
        missing = []
        while self._pending and self._pending[0][0].taken_to + self._margin <= at:
            reading, least = self._pending.popleft()
            found = self._compare(_Bounds(reading, reading.counter - seen, reading.counter - least))
            if found is not None:
                missing.append(found)
        return missing

    def _compare(self, bounds: _Bounds) -> Missing | None:
        reading, span, recent = bounds.reading, self._span, self._recent
        before = recent[-1].reading if recent else span
        if before is not None and (
            reading.counter < before.counter or reading.canaries < before.canaries or reading.nodes != before.nodes
        ):
            span = self._span = None
            recent.clear()
        recent.append(bounds)
        if len(recent) < IN_A_ROW:
            return None
        lowest = min(one.lowest for one in recent)
        highest = max(one.highest for one in recent)
        if any(one.reading.transactional for one in recent):
            return None
        if span is None or highest < span.lowest:
            # either the first, or more was seen than counted: against the old level, losses of as many would not show
            self._span = _begin(recent, lowest, highest)
            return None
        missing = None
        if lowest > span.highest:
            missing = Missing(lowest - span.highest, span.highest_at, reading.taken_to)
            # from here on the loss is part of the level; if it was larger than is proven, that comes out later
            span = span._replace(lowest=lowest, highest=lowest, missing=span.missing + missing.publishes)
            recent.clear()
        else:
            span = span._replace(lowest=max(span.lowest, lowest))
            if highest <= span.highest:
                span = span._replace(highest=highest, highest_at=recent[0].reading.taken_from)
        self._span = _go_on(span, bounds)
        return missing


def _begin(recent: Sequence[_Bounds], lowest: int, highest: int) -> Span:
    first, last = recent[0].reading, recent[-1]
    span = Span(
        since_at=first.taken_from,
        compared_at=first.taken_from,
        counted=0,
        seen_least=0,
        seen_most=0,
        missing=0,
        counter=first.counter,
        canaries=first.canaries,
        nodes=first.nodes,
        lowest=lowest,
        highest=highest,
        highest_at=first.taken_from,
    )
    return _go_on(span, last)


def _go_on(span: Span, newest: _Bounds) -> Span:
    """Return the span as it stands after its newest reading."""
    reading = newest.reading
    counted = span.counted + reading.counter - span.counter
    return span._replace(
        compared_at=reading.taken_to,
        counted=counted,
        # what the level says was seen, as far as it is known now and was known before the losses
        seen_least=counted - span.missing + span.lowest - newest.highest,
        seen_most=counted - span.missing + span.highest - newest.lowest,
        counter=reading.counter,
        canaries=reading.canaries,
    )
