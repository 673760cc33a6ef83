"""The audit's clock: no jump of the wall clock is one of the audit's."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.clock import FOLLOW, Clock

SECOND = 1_000_000  # microseconds
START = 1_800_000_000 * SECOND


class Machine:
    """A machine whose wall clock can be set."""

    def __init__(self) -> None:
        self.passed = 0  # microseconds since its start
        self.set_by = 0  # microseconds

    def clock(self, not_before: int = 0) -> Clock:
        """A clock that runs on it."""
        return Clock(
            not_before,
            wall=lambda: (START + self.passed + self.set_by) * 1000,
            steady=lambda: (77 * SECOND + self.passed) * 1000,
        )

    def wait(self, clock: Clock, seconds: float) -> None:
        """Let time pass; the clock is looked after as the daemon does it."""
        for _ in range(int(seconds / FOLLOW)):
            self.passed += int(FOLLOW * SECOND)
            clock.follow()


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_it_tells_the_wall_clocks_time(machine: Machine) -> None:
    clock = machine.clock()
    assert clock.now() == START
    machine.wait(clock, 3600)
    assert (clock.now(), clock.problem) == (START + 3600 * SECOND, None)


@pytest.mark.parametrize("step", [-3600, -2, 2, 3600])
def test_a_step_of_the_wall_clock_is_none_of_the_audits(
    machine: Machine, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock = machine.clock()
    machine.set_by = step * SECOND
    assert clock.now() == START
    with caplog.at_level(logging.WARNING):
        machine.wait(clock, 10)
    assert abs(clock.now() - (START + 10 * SECOND)) <= 0.1 * SECOND, "one percent at most"
    assert clock.problem is not None
    assert ("ahead of" in clock.problem) == (step > 0)
    assert [record.__dict__["by_seconds"] for record in caplog.records] == [pytest.approx(step, abs=0.2)], "told once"


@pytest.mark.parametrize("step", [-60, 60])
def test_it_follows_until_both_agree(machine: Machine, step: int) -> None:
    clock = machine.clock()
    machine.set_by = step * SECOND
    machine.wait(clock, 2 * 6000)
    assert abs(clock.now() - (START + machine.passed + machine.set_by)) < 0.001 * SECOND
    assert clock.problem is None


def test_a_drift_is_followed_without_a_word(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    clock = machine.clock()
    for _ in range(3600):
        machine.set_by += 50  # microseconds a second
        machine.wait(clock, 1)
    assert abs(clock.now() - (START + machine.passed + machine.set_by)) < 0.01 * SECOND
    assert not caplog.records


def test_after_a_restart_it_does_not_go_back_behind_the_ledger(machine: Machine) -> None:
    """The wall clock was set back while the auditor was away: its canaries must be newer than those it knows."""
    clock = machine.clock(not_before=START + 3600 * SECOND)
    assert clock.now() == START + 3600 * SECOND
    assert clock.problem is not None
    assert "60 min behind" in clock.problem


@given(st.lists(st.tuples(st.integers(0, 100 * SECOND), st.integers(-(10**13), 10**13), st.booleans())))
def test_it_never_goes_back_and_is_never_much_faster_or_slower(steps: list[tuple[int, int, bool]]) -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock.now()
    for passed, set_by, follow in steps:
        machine.set_by = max(set_by, -START // 2)
        machine.passed += passed
        if follow:
            clock.follow()
        now = clock.now()
        assert 0.99 * passed - 2 <= now - before <= 1.01 * passed + 2
        before = now
