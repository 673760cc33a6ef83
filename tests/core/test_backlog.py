"""The backlog: whether the trace queue was full."""

from __future__ import annotations

from auditor.core.backlog import Backlog


def test_a_canary_behind_nearly_as_much_as_the_queue_may_hold_tells_that_it_was_full() -> None:
    backlog = Backlog(1000)
    backlog.read(5000)
    backlog.sent(1, 77)
    backlog.read(950)
    assert backlog.overflowed(1) == (77,), "since the watermark of that time events may have been dropped"


def test_a_canary_behind_less_tells_nothing() -> None:
    backlog = Backlog(1000)
    backlog.sent(1, 77)
    backlog.read(500)
    backlog.sent(2, 88)
    backlog.read(300)
    assert backlog.overflowed(1) is None
    backlog.read(500)
    assert backlog.overflowed(2) is None


def test_the_first_canary_of_a_first_run_knows_no_beginning() -> None:
    backlog = Backlog(1000)
    backlog.sent(1, None)
    backlog.read(1000)
    assert backlog.overflowed(1) == (None,)


def test_a_canary_of_another_run_or_of_a_lost_connection_tells_nothing() -> None:
    backlog = Backlog(1000)
    backlog.sent(1, 77)
    backlog.read(2000)
    backlog.forget()
    assert backlog.overflowed(1) is None
    assert backlog.overflowed(99) is None


def test_canaries_that_never_come_back_take_no_memory() -> None:
    backlog = Backlog(1000)
    for number in range(20_000):
        backlog.sent(number, 1)
    assert len(backlog._sent) <= 10_000
