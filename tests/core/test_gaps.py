"""Gaps: what was not audited, and from when to when."""

from __future__ import annotations

import pytest

from auditor.core.gaps import Gap, GapReason, Gaps
from auditor.core.hops import Reason


@pytest.mark.parametrize(
    ("what", "gap", "flight", "covered"),
    [
        ("a flight within it", (10, 20), (12, 15), True),
        ("a flight around it", (10, 20), (5, 25), True),
        ("a flight that ends in it", (10, 20), (5, 11), True),
        ("a flight that begins in it", (10, 20), (19, 25), True),
        ("a flight that was over before", (10, 20), (5, 10), False),
        ("a flight that begins with the canary that ended it", (10, 20), (20, 25), False),
        ("nothing was ever seen before it ended", (None, 20), (0, 5), True),
        ("it ended, since ever, before the flight", (None, 20), (20, 25), False),
        ("it still lasts", (10, None), (50, 60), True),
        ("it still lasts, and the flight was over before", (10, None), (5, 10), False),
    ],
)
def test_covers(what: str, gap: tuple[int | None, int | None], flight: tuple[int, int], covered: bool) -> None:
    from_at, to_at = gap
    assert Gap(1, GapReason.BLIND, from_at, 15, to_at).covers(*flight) is covered, what


@pytest.mark.parametrize("reason", GapReason)
def test_every_reason_of_a_gap_is_told_of_a_hop(reason: GapReason) -> None:
    same = {GapReason.OVERFLOW: Reason.OVERFLOW, GapReason.QUEUE_GONE: Reason.QUEUE_GONE}
    assert reason.of_hop is same.get(reason, Reason.BLIND)


def test_it_ends_with_the_first_canary_published_after_it_was_noticed() -> None:
    gaps = Gaps()
    gap = gaps.notice(GapReason.FIREHOSE_OFF, at=150, since=100, new_id=lambda: 1)
    assert gaps.open is gap
    assert gaps.sighted(100) is None
    assert gaps.sighted(151) is gap
    assert (gap.from_at, gap.to_at) == (100, 151)
    assert gaps.sighted(152) is None, "it is over"


def test_noticed_again_it_goes_on_and_only_later_canaries_end_it() -> None:
    gaps = Gaps()
    gap = gaps.notice(GapReason.BLIND, at=150, since=100, new_id=lambda: 1)
    assert gaps.notice(GapReason.QUEUE_GONE, at=180, since=100, new_id=lambda: 2) is gap
    assert (gap.id, gap.reason) == (1, GapReason.QUEUE_GONE)
    assert gaps.sighted(160) is gap  # moved its beginning, did not end it
    assert gaps.open is gap
    gaps.sighted(181)
    assert gap.to_at == 181
    assert gaps.open is None


def test_canaries_that_never_came_back_are_a_gap_though_nobody_noticed() -> None:
    gap = Gaps().missed(GapReason.BLIND, 100, 130, lambda: 7)
    assert gap is not None
    assert (gap.id, gap.from_at, gap.to_at) == (7, 100, 130)


def test_a_canary_behind_missing_ones_does_not_move_the_beginning() -> None:
    gaps = Gaps()
    gap = gaps.notice(GapReason.BLIND, at=150, since=100, new_id=lambda: 1)
    gaps.sighted(110)
    assert gaps.missed(GapReason.BLIND, 110, 130, lambda: 2) is None, "it is the one that lasts"
    assert gaps.sighted(130) is None
    assert gap.from_at == 110
    gaps.sighted(151)
    assert (gap.from_at, gap.to_at) == (110, 151)


def test_a_reason_that_is_known_stays() -> None:
    gaps = Gaps()
    gap = gaps.notice(GapReason.FIRST_START, at=150, since=None, new_id=lambda: 1)
    gaps.notice(GapReason.BLIND, at=160, since=None, new_id=lambda: 2)
    assert (gap.reason, gap.from_at) == (GapReason.FIRST_START, None)


def test_a_gap_of_the_last_run_goes_on() -> None:
    stored = Gap(5, GapReason.BLIND, 100, noticed_at=200)
    gaps = Gaps(stored)
    assert gaps.open is stored
    assert gaps.sighted(201) is stored
    assert stored.to_at == 201


def test_gaps_that_join_are_one() -> None:
    gaps = Gaps()
    numbers = iter(range(10)).__next__
    first = gaps.missed(GapReason.OVERFLOW, 100, 130, numbers)
    assert gaps.missed(GapReason.OVERFLOW, 120, 140, numbers) is first is gaps.proven
    assert gaps.missed(GapReason.OVERFLOW, 140, 150, numbers) is first
    assert first is not None
    assert (first.id, first.from_at, first.to_at) == (0, 100, 150)
    assert gaps.missed(GapReason.BLIND, 150, 160, numbers) is not first, "another reason"
    assert gaps.missed(GapReason.BLIND, 161, 170, numbers) is gaps.proven
    assert gaps.proven is not None
    assert (gaps.proven.from_at, gaps.proven.to_at) == (161, 170)


def test_what_is_missed_while_a_gap_lasts_makes_it_longer_and_gives_it_its_reason() -> None:
    gaps = Gaps()
    gap = gaps.notice(GapReason.BLIND, at=150, since=100, new_id=lambda: 1)
    assert gaps.missed(GapReason.OVERFLOW, 90, 140, lambda: 2) is None
    assert (gap.reason, gap.from_at) == (GapReason.OVERFLOW, 90)


# a gap that is only suspected


def test_a_suspicion_is_void_when_all_canaries_come_back() -> None:
    gaps = Gaps()
    gap = gaps.notice(GapReason.BLIND, 20, 10, lambda: 1, suspected=True)
    assert gaps.suspected
    gaps.sighted(12)  # those that were only late
    gaps.sighted(15)
    assert gaps.sighted(21) is gap
    assert gap.void
    assert not gap.covers(0, 100)
    assert gaps.open is None
    assert not gaps.suspected


def test_a_suspicion_is_a_gap_once_a_canary_is_missing() -> None:
    gaps = Gaps()
    gap = gaps.notice(GapReason.BLIND, 20, 10, lambda: 1, suspected=True)
    assert gaps.missed(GapReason.BLIND, 10, 21, lambda: 1) is None
    assert not gaps.suspected
    gaps.sighted(21)
    assert (gap.from_at, gap.to_at, gap.void) == (10, 21, False)


def test_a_suspicion_is_a_gap_when_it_cannot_be_cleared_up() -> None:
    gaps = Gaps()
    gap = gaps.notice(GapReason.BLIND, 20, 10, lambda: 1, suspected=True)
    gaps.confirm()
    gaps.sighted(21)
    assert (gap.from_at, gap.to_at) == (10, 21)


@pytest.mark.parametrize("first", [True, False])
def test_a_suspicion_beside_a_known_cause_is_none(first: bool) -> None:
    gaps = Gaps()
    gaps.notice(GapReason.BLIND, 20, 10, lambda: 1, suspected=first)
    gap = gaps.notice(GapReason.FIREHOSE_OFF, 20, 10, lambda: 1, suspected=not first)
    assert not gaps.suspected
    gaps.sighted(21)
    assert not gap.void


def test_before_the_first_canary_nothing_is_void() -> None:
    gaps = Gaps()
    gap = gaps.notice(GapReason.BLIND, 20, None, lambda: 1, suspected=True)
    gaps.sighted(21)
    assert not gap.void
