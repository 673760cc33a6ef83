"""Completeness against a small broker whose counters lag: no loss is claimed that was none, and none is missed."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from auditor.core.completeness import Completeness, Missing, Reading

SECOND = 1_000_000
MARGIN = 2 * SECOND


@dataclass
class SmallBroker:
    """Counts what is published, collects the counter now and then, and sends events, some late, some never."""

    published: list[int] = field(default_factory=list)  # when, of those that are counted
    lost: set[int] = field(default_factory=set)  # indexes of those whose event is lost
    uncounted: list[int] = field(default_factory=list)  # when, of those that are traced only
    counter_from: int = 0  # publishes before this time are not in the counter
    node: str = "rabbit@one"

    def counter(self, at: int) -> int:
        return bisect_right(self.published, at) - bisect_right(self.published, self.counter_from)

    def seen(self, at: int) -> int:
        """Events that had happened by then and were not lost."""
        counted = bisect_right(self.published, at)
        return counted - sum(1 for one in self.lost if one < counted) + bisect_right(self.uncounted, at)


class Audit:
    """Drives a Completeness through time, second by second, as the audit does."""

    def __init__(self, broker: SmallBroker) -> None:
        self.broker = broker
        self.completeness = Completeness(MARGIN)
        self.missing: list[Missing] = []
        self.now = self.taken = 0

    def run(self, until: int, *, lag: int, behind: int, interval: int, transactional: bool = False) -> None:
        """`lag`: how old a counter may be; `behind`: how late events arrive; all in microseconds."""
        broker, completeness = self.broker, self.completeness
        while self.now < until:
            self.now += SECOND
            # the events of the past, then the canary that was published as long ago
            seen = broker.seen(self.now - behind)
            completeness.arrived(self.now, seen)
            self.missing += completeness.sighted(self.now - behind, seen)
            if self.now % interval == 0:
                # anywhere within the lag, but never backwards
                self.taken = taken = max(self.taken, self.now - self.now * 7919 % (lag + 1))
                completeness.read(
                    Reading(
                        broker.counter(taken),
                        canaries=(taken - broker.counter_from) // SECOND,
                        nodes=broker.node,
                        taken_from=self.now - lag,
                        taken_to=self.now,
                        transactional=transactional,
                    )
                )

    @property
    def found(self) -> int:
        return sum(missing.publishes for missing in self.missing)


def burst(start: int, seconds: int, rate: int) -> list[int]:
    return [start * SECOND + number * SECOND // rate for number in range(seconds * rate)]


LAGS = st.integers(0, 6 * SECOND)
BEHIND = st.integers(0, 30).map(lambda seconds: seconds * SECOND)
INTERVALS = st.integers(2, 12).map(lambda seconds: seconds * SECOND)
BURSTS = st.lists(st.builds(burst, st.integers(0, 300), st.integers(1, 120), st.integers(1, 50)), max_size=5).map(
    lambda bursts: sorted(at for one in bursts for at in one)
)


@given(BURSTS, BURSTS, LAGS, BEHIND, INTERVALS)
def test_where_all_is_seen_nothing_is_missing(
    published: list[int], uncounted: list[int], lag: int, behind: int, interval: int
) -> None:
    audit = Audit(SmallBroker(published, uncounted=uncounted))
    audit.run(500 * SECOND, lag=lag, behind=behind, interval=interval)
    assert audit.missing == []
    span = audit.completeness.span
    assert span is not None
    assert span.seen_least <= span.counted <= span.seen_most or uncounted


@given(BURSTS, LAGS, BEHIND, INTERVALS, st.data())
def test_what_is_lost_is_found_to_the_last_one_in_a_pause_and_never_more(
    published: list[int], lag: int, behind: int, interval: int, data: st.DataObject
) -> None:
    start = 120  # seconds; the first readings are taken before
    broker = SmallBroker([at + start * SECOND for at in published])
    lost = data.draw(st.sets(st.integers(0, len(published) - 1), max_size=20)) if published else set()
    broker.lost = lost
    audit = Audit(broker)
    pause = 600 * SECOND
    while audit.now < pause:
        audit.run(audit.now + SECOND, lag=lag, behind=behind, interval=interval)
        assert audit.found <= len(lost)
    audit.run(pause + 100 * SECOND, lag=lag, behind=behind, interval=interval)
    event(f"lost: {bool(lost)}")
    assert audit.found == len(lost)
    for missing in audit.missing:
        assert missing.from_at < missing.to_at
    if lost:
        times = [broker.published[one] for one in lost]
        assert min(missing.from_at for missing in audit.missing) <= min(times)
        assert max(missing.to_at for missing in audit.missing) >= max(times)
    span = audit.completeness.span
    assert span is not None
    assert span.missing == len(lost)
    assert span.counted == len(published)
    assert span.seen_least == span.seen_most == len(published) - len(lost)


def test_a_loss_under_traffic_that_never_pauses_is_found_within_what_cannot_be_told() -> None:
    rate = 100
    broker = SmallBroker(burst(0, 400, rate))
    seconds = 12  # the lag, the margin, and the second between two canaries, with something to spare
    broker.lost = set(range(200 * rate, 200 * rate + seconds * rate))
    audit = Audit(broker)
    audit.run(400 * SECOND, lag=5 * SECOND, behind=0, interval=10 * SECOND)
    assert 0 < audit.found <= len(broker.lost)


@given(st.integers(0, 100), st.booleans())
def test_counters_that_begin_again_are_no_loss(after: int, other_node: bool) -> None:
    broker = SmallBroker(burst(0, 100, 10) + burst(100, after, 30))
    audit = Audit(broker)
    audit.run(100 * SECOND, lag=SECOND, behind=0, interval=5 * SECOND)
    before = audit.completeness.span
    assert before is not None
    broker.counter_from = 100 * SECOND
    if other_node:
        broker.node = "rabbit@one rabbit@two"
    audit.run(300 * SECOND, lag=SECOND, behind=0, interval=5 * SECOND)
    assert audit.missing == []
    span = audit.completeness.span
    assert span is not None
    assert span.since_at > before.since_at
    assert span.seen_least == span.seen_most == span.counted


@pytest.mark.parametrize("change", ["a node comes back with its counters", "the canaries' exchange is made again"])
def test_a_counter_that_jumps_for_a_known_cause_is_no_loss(change: str) -> None:
    audit = Audit(SmallBroker(burst(0, 100, 10)))
    audit.run(100 * SECOND, lag=0, behind=0, interval=5 * SECOND)
    span = audit.completeness.span
    assert span is not None
    nodes, canaries = ("rabbit@one rabbit@two", 200) if change.startswith("a node") else (span.nodes, 3)
    for number in range(10):
        audit.now += 5 * SECOND
        audit.completeness.arrived(audit.now, 1000)
        audit.missing += audit.completeness.sighted(audit.now, 1000)
        audit.completeness.read(Reading(1500, canaries + number, nodes, audit.now, audit.now, False))
    assert audit.missing == []
    now = audit.completeness.span
    assert now is not None
    assert now.since_at > span.since_at


def test_what_is_committed_later_than_it_is_traced_is_no_loss() -> None:
    # traced in the first minute, counted in the third; the channel is gone then
    broker = SmallBroker([150 * SECOND] * 500, lost=set(range(500)), uncounted=burst(30, 10, 50))
    audit = Audit(broker)
    audit.run(30 * SECOND, lag=0, behind=0, interval=5 * SECOND)
    audit.run(150 * SECOND, lag=0, behind=0, interval=5 * SECOND, transactional=True)
    audit.run(300 * SECOND, lag=0, behind=0, interval=5 * SECOND)
    assert audit.missing == []


def test_one_reading_that_is_off_is_no_loss() -> None:
    audit = Audit(SmallBroker(burst(0, 100, 10)))
    completeness = audit.completeness
    audit.run(150 * SECOND, lag=0, behind=0, interval=5 * SECOND)
    span = completeness.span
    assert span is not None
    for off in (40, -40):
        completeness.read(Reading(1000 + off, span.canaries + 100, "rabbit@one", audit.now, audit.now, False))
        audit.run(audit.now + 100 * SECOND, lag=0, behind=0, interval=5 * SECOND)
    assert audit.missing == []


def test_it_goes_on_where_the_ledger_stands() -> None:
    broker = SmallBroker(burst(0, 100, 10))
    audit = Audit(broker)
    audit.run(120 * SECOND, lag=0, behind=0, interval=5 * SECOND)
    span = audit.completeness.span
    audit.completeness = Completeness(MARGIN, span)
    # overflowed while nobody was there
    broker.published += burst(130, 10, 10)
    broker.lost = set(range(1010, 1030))
    audit.now = 200 * SECOND
    audit.run(300 * SECOND, lag=0, behind=0, interval=5 * SECOND)
    assert audit.found == 20
    now = audit.completeness.span
    assert span is not None
    assert now is not None
    assert (now.since_at, now.counted, now.missing) == (span.since_at, span.counted + 100, 20)
    assert now.seen_least == now.seen_most == now.counted - 20


def test_without_canaries_nothing_is_compared() -> None:
    completeness = Completeness(MARGIN)
    for at in range(100):
        completeness.arrived(at * SECOND, 0)
        completeness.read(Reading(at * 10, at, "rabbit@one", at * SECOND, at * SECOND, False))
    assert completeness.span is None
