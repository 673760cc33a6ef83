"""What is shown: each verdict once, and the figures no more often than somebody reads them."""

from __future__ import annotations

import io

from auditor.core.hops import Reason, State
from auditor.demo.display import Display
from auditor.demo.facts import Facts
from auditor.demo.faults import make_plan
from auditor.demo.report import SeenHop, compare
from tests.demo.history import perfect_run

STUCK = SeenHop(1, "m", "A-00001", "mes.line-purged", State.STUCK, Reason.NO_CONSUMER, 0)


def test_a_verdict_is_told_when_it_falls_changes_and_is_withdrawn() -> None:
    stream = io.StringIO()
    display = Display(stream)
    lost = STUCK._replace(state=State.LOST, reason=Reason.QUEUE_EMPTY)
    for hops in ([], [STUCK], [STUCK], [lost], [lost], [], []):
        display.verdicts(hops)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    for line, words in zip(lines, ("stuck/no_consumer", "lost/queue_empty", "late"), strict=True):
        assert words in line and "A-00001" in line and "mes.line-purged" in line


def test_figures_are_not_repeated_at_once_where_nobody_watches() -> None:
    stream = io.StringIO()
    display = Display(stream)
    for _ in range(10):
        display.figures(Facts(), 3)
    assert len(stream.getvalue().splitlines()) == 1
    assert "3 open" in stream.getvalue()


def test_on_a_terminal_the_figures_are_written_over() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    display = Display(stream)
    display.figures(Facts(), 3)
    display.figures(Facts(), 4)
    display.say("done")
    assert stream.getvalue().count("\r\x1b[K") == 3
    assert stream.getvalue().count("\n") == 1


def test_the_result_names_every_fault_and_everything_that_is_wrong() -> None:
    plan = make_plan(1, 30)
    facts, hops = perfect_run(plan)
    stream = io.StringIO()
    Display(stream).result(compare(plan, facts, hops[1:]))
    text = stream.getvalue()
    for name in plan.planted:
        assert name in text
    assert "falsely claimed: 0" in text
    assert "times in the ledger" in text
