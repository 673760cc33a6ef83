"""When events happened, as far as the canaries around them tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.core.changes import HopRow
from auditor.core.hops import State
from auditor.core.times import Times, TimeSource
from tests.core.fakes import Audit, delivered, published

SECOND = 1_000_000


def times(broker_timestamps: bool = False) -> Times:
    return Times(behind=3, far_behind=10, broker_timestamps=broker_timestamps)


def test_while_the_auditor_keeps_up_events_happen_when_they_arrive() -> None:
    at = times()
    at.advance(newest=100, upcoming=101)
    assert at.published(102, {}) == (102, TimeSource.ARRIVAL)
    assert at.delivered(102) == 102


def test_before_the_first_canary_there_is_nothing_but_the_arrival() -> None:
    assert times().published(102, {}) == (102, TimeSource.ARRIVAL)
    assert times().delivered(102) == 102


def test_behind_an_event_lies_between_the_canary_that_came_back_and_the_next() -> None:
    at = times()
    at.advance(newest=100, upcoming=101)
    assert at.published(200, {}) == (101, TimeSource.CANARY)
    assert at.delivered(200) == 100


def test_a_canary_that_may_be_lost_tells_nothing_of_a_publish() -> None:
    at = times()
    at.advance(newest=100, upcoming=101)
    assert at.published(108, {}) == (108, TimeSource.BACKLOG)


def test_after_a_downtime_a_publish_is_no_later_than_its_arrival_and_a_delivery_no_earlier_than_the_last_canary() -> (
    None
):
    at = times()
    at.advance(newest=100, upcoming=None)
    assert at.published(5000, {}) == (5000, TimeSource.BACKLOG)
    assert at.delivered(5000) == 100


@pytest.mark.parametrize(
    ("what", "stamp", "expected"),
    [
        ("the broker's time, in milliseconds", 3, (3000, TimeSource.BROKER)),
        ("a clock that runs behind ours, or a forgery", 1, (9000, TimeSource.BACKLOG)),
        ("a clock that runs ahead of ours, or a forgery", 10, (9000, TimeSource.BACKLOG)),
        ("no number", "now", (9000, TimeSource.BACKLOG)),
    ],
)
def test_the_brokers_own_time(what: str, stamp: object, expected: tuple[int, TimeSource]) -> None:
    at = times(broker_timestamps=True)
    at.advance(newest=2000, upcoming=None)
    assert at.published(9000, {"timestamp_in_ms": stamp}) == expected, what


def test_a_time_in_the_message_is_not_believed_unless_the_broker_is_known_to_write_it() -> None:
    assert times().published(9000, {"timestamp_in_ms": 3}) == (9000, TimeSource.ARRIVAL)


@given(
    canaries=st.lists(st.integers(1, 50), min_size=1),
    published_after=st.integers(0, 200),
    delivered_after=st.integers(0, 200),
    lags=st.tuples(st.integers(0, 500), st.integers(0, 500)),
)
def test_an_estimate_never_makes_a_wait_longer(
    canaries: list[int], published_after: int, delivered_after: int, lags: tuple[int, int]
) -> None:
    """However far behind the two are read: what is told is at most the time that really passed, and what it may be
    wrong by while the auditor keeps up."""
    line, at = [0], 0
    for pause in canaries:
        line.append(at := at + pause)
    publish, delivery = published_after, published_after + delivered_after
    clock = times()

    def seen(when: int, lag: int) -> int:
        back = [one for one in line if one <= when]
        out = [one for one in line if one > when and one <= when + lag]
        clock.advance(newest=back[-1], upcoming=out[0] if out else None)
        return when + lag

    published_at, _ = clock.published(seen(publish, lags[0]), {})
    assert published_at >= publish
    delivered_at = clock.delivered(seen(delivery, lags[1]))
    assert delivered_at - published_at <= delivery - publish + 3


# in the matcher


def hops(audit: Audit) -> list[HopRow]:
    audit.commit()
    return [hop for _, hop in sorted(audit.ledger.hops.items())]


def test_a_message_that_was_delivered_while_the_auditor_was_away_is_not_late() -> None:
    audit = Audit()
    audit.advance(0.5, newest=0.5)
    audit.see(published(1, "inbox"))
    audit.see(delivered(3600, "inbox"))  # the first canary after the downtime is behind it
    [hop] = hops(audit)
    assert (hop.state, hop.wait) == (State.DELIVERED, 0)


def test_one_that_was_published_and_delivered_meanwhile_is_not_late_either() -> None:
    audit = Audit()
    audit.advance(0.5, newest=0.5)
    audit.see(published(3600, "inbox"), delivered(3601, "inbox"))
    [hop] = hops(audit)
    assert (hop.state, hop.wait) == (State.DELIVERED, 0)
    assert [row.time_source for row in audit.ledger.messages.values()] == [TimeSource.BACKLOG]


def test_one_that_was_late_for_sure_is_late_however_late_it_is_read() -> None:
    audit = Audit()
    audit.advance(0.5, newest=0.5)
    audit.see(published(1, "inbox"))
    audit.advance(100, newest=100)  # a canary of the time before the auditor fell behind
    audit.see(delivered(3600, "inbox"))
    [hop] = hops(audit)
    assert (hop.state, hop.wait) == (State.LATE, 99 * SECOND)


def test_a_message_read_far_behind_has_the_time_of_the_canary_behind_it() -> None:
    audit = Audit()
    audit.advance(10, newest=10, upcoming=11)
    audit.see(published(100, "inbox"))
    audit.commit()
    [row] = audit.ledger.messages.values()
    assert (row.published_at, row.time_source) == (11 * SECOND, TimeSource.CANARY)


def test_a_delivery_that_comes_before_its_publish_keeps_its_estimate() -> None:
    audit = Audit()
    audit.advance(10, newest=10)
    audit.see(delivered(100, "inbox"), published(101, "inbox"))
    [hop] = hops(audit)
    assert (hop.state, hop.wait) == (State.DELIVERED, 0)
