"""The report finds what is right, and finds every way of being wrong."""

from __future__ import annotations

import pytest

from auditor.core.hops import Reason, State
from auditor.demo.faults import FAULTS, make_plan
from auditor.demo.orders import message_id
from auditor.demo.report import Report, SeenHop, compare
from tests.demo.history import APPROVAL, perfect_run

PLAN = make_plan(7, 60)


def judge(change: dict[str, SeenHop | None] | None = None, *, more: list[SeenHop] | None = None) -> Report:
    """Compare a perfect run with one hop of some faults changed or taken away, and with further hops."""
    facts, hops = perfect_run(PLAN)
    for fault, hop in (change or {}).items():
        at = hops.index(first_hop(fault))
        hops[at : at + 1] = [] if hop is None else [hop]
    return compare(PLAN, facts, [*hops, *(more or [])])


def first_hop(fault: str) -> SeenHop:
    """The hop of the first order that the plan sends to a faulty line ("" for a healthy one)."""
    order = next(order for order, line in PLAN.lines.items() if line == fault or (not fault and line not in FAULTS))
    each = message_id(PLAN.seed, order, APPROVAL)
    return next(hop for hop in perfect_run(PLAN)[1] if hop.message_id == each)


def test_a_perfect_audit_is_good() -> None:
    report = judge()
    assert report.good
    assert report.found == report.planned == PLAN.planted
    assert (report.missed, report.false, report.differences) == ((), (), ())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planned_message_without_its_verdict_is_missed(fault: str) -> None:
    report = judge({fault: first_hop(fault)._replace(state=State.IN_FLIGHT, reason=None)})
    assert not report.good
    assert report.found[fault] == report.planned[fault] - 1
    assert len(report.missed) == 1 and fault in report.missed[0] and "in_flight" in report.missed[0]
    assert report.in_flight == 1


def test_the_wrong_reason_is_missed_but_no_false_claim() -> None:
    report = judge({"purged": first_hop("purged")._replace(reason=Reason.QUEUE_MISSING)})
    assert len(report.missed) == 1
    assert report.false == ()


@pytest.mark.parametrize("fault", ["", "redelivered", "duplicated"])
@pytest.mark.parametrize("state", [State.LOST, State.STUCK, State.UNKNOWN])
def test_a_verdict_against_what_arrived_is_a_false_claim(fault: str, state: State) -> None:
    report = judge({fault: first_hop(fault)._replace(state=state)})
    assert not report.good
    assert len(report.false) == 1 and state in report.false[0]


def test_a_kept_message_of_the_overflowed_queue_may_not_be_called_lost() -> None:
    facts, hops = perfect_run(PLAN)
    kept = next(hop for hop in hops if hop.queue == "mes.line-overflowed" and hop.state is State.DELIVERED)
    hops[hops.index(kept)] = kept._replace(state=State.LOST, reason=Reason.OVERTAKEN)
    report = compare(PLAN, facts, hops)
    assert len(report.false) == 1
    assert report.found["overflowed"] == report.planned["overflowed"]


def test_a_message_that_the_ledger_does_not_have_is_a_difference() -> None:
    report = judge({"": None})
    assert not report.good
    assert "published 1 times, 0 times in the ledger" in report.differences[0]
    assert "delivered 1 times, 0 times in the ledger" in report.differences[1]


def test_a_message_that_is_in_the_ledger_twice_is_a_difference() -> None:
    report = judge(more=[first_hop("")._replace(message=10_000)])
    assert not report.good
    assert "published 1 times, 2 times in the ledger" in report.differences[0]


def test_a_delivery_too_many_is_a_difference() -> None:
    report = judge({"": first_hop("")._replace(attempts=2)})
    assert not report.good
    assert "delivered 1 times, 2 times in the ledger" in report.differences[0]


def test_something_that_nobody_sent_is_a_difference() -> None:
    report = judge(more=[SeenHop(10_000, None, None, "mes.line-1", State.DELIVERED, None, 1)])
    assert not report.good
    assert any("published 0 times, 1 times" in line for line in report.differences)


def test_a_redelivery_counted_once_only_is_missed() -> None:
    report = judge({"redelivered": first_hop("redelivered")._replace(attempts=1)})
    assert report.found["redelivered"] == report.planned["redelivered"] - 1
