"""The watermark: how far the audit has seen."""

from __future__ import annotations

from auditor.core.watermark import Watermark

MARGIN = 20


def test_before_the_first_canary_nothing_is_known() -> None:
    watermark = Watermark(MARGIN)
    watermark.sent(1, 100)
    assert (watermark.at, watermark.horizon) == (None, None)


def test_it_is_the_newest_canary_that_came_back_and_the_horizon_lies_a_margin_before() -> None:
    watermark = Watermark(MARGIN)
    for number, at in ((1, 100), (2, 110), (3, 120)):
        watermark.sent(number, at)
    watermark.returned(1, 100)
    watermark.returned(2, 110)
    assert (watermark.at, watermark.horizon) == (110, 90)


def test_it_never_goes_back() -> None:
    """A canary of an earlier run may be found in the backlog."""
    watermark = Watermark(MARGIN, at=100)
    watermark.returned(7, 50)
    assert watermark.at == 100


def test_it_stands_still_while_no_canary_comes_back_and_says_since_when() -> None:
    watermark = Watermark(MARGIN, at=100)
    assert watermark.silent_since() is None
    watermark.sent(1, 110)
    watermark.sent(2, 120)
    assert (watermark.at, watermark.silent_since()) == (100, 110)
    watermark.returned(1, 110)
    assert (watermark.at, watermark.silent_since()) == (110, 120)
    watermark.returned(2, 120)
    assert (watermark.at, watermark.silent_since()) == (120, None)


def test_a_later_canary_ends_the_wait_for_the_earlier_ones() -> None:
    watermark = Watermark(MARGIN)
    for number in (1, 2, 3):
        watermark.sent(number, number * 10)
    watermark.returned(2, 20)
    assert watermark.silent_since() == 30


def test_a_canary_that_was_passed_over_is_told() -> None:
    watermark = Watermark(MARGIN)
    for number in (1, 2, 3):
        watermark.sent(number, number * 10)
    assert not watermark.returned(1, 10)
    assert watermark.returned(3, 30), "the second one is lost, and who knows what with it"


def test_a_canary_whose_trace_event_was_quicker_than_its_note_is_not_waited_for() -> None:
    watermark = Watermark(MARGIN)
    assert not watermark.returned(1, 10)
    watermark.sent(1, 10)
    assert watermark.silent_since() is None


def test_an_older_canary_does_not_end_the_wait_for_a_newer_one() -> None:
    watermark = Watermark(MARGIN)
    watermark.sent(1, 10)
    watermark.returned(99, 5)
    assert watermark.silent_since() == 10


def test_canaries_of_a_lost_connection_are_given_up() -> None:
    watermark = Watermark(MARGIN, at=100)
    watermark.sent(1, 110)
    watermark.forget()
    assert (watermark.at, watermark.silent_since()) == (100, None)
