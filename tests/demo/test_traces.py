"""The spans of a whole demo, for every kind of fault, as the demo's own receiver gets them."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from pathlib import Path

import pytest

from auditor.demo.display import Display
from auditor.demo.evidence import DEADLINE
from auditor.demo.faults import FAULTS, HEALTHY_LINES, make_plan
from auditor.demo.orders import STAGES, message_id
from auditor.demo.receiver import Span
from auditor.demo.run import Options, run
from auditor.demo.server import Broker

SEED = 5
APPROVED = "MANUFACTURING_APPROVED"

# fault -> the verdicts that its approvals' spans give, in their order, and what each says of an error
EXPECTED = {
    "unroutable": [("unroutable", "unroutable: no_queue")],
    "stopped": [("stuck", "stuck: no_consumer")],
    "expired": [("lost", "lost: queue_empty")],
    "purged": [("lost", "lost: queue_empty")],
    "deleted": [("lost", "lost: queue_missing")],
    "rejected": [("dead_lettered", "dead_lettered: rejected"), ("delivered", "")],
    "redelivered": [("delivered", ""), ("delivered", "")],
    "duplicated": [("delivered", ""), ("delivered", "")],
}


@pytest.mark.timeout(150)
def test_every_fault_is_told_as_what_it_is_and_every_order_is_whole(broker: Broker, tmp_path: Path) -> None:
    options = Options(seconds=3, rate=7, seed=SEED, folder=tmp_path, ledger=tmp_path / "ledger.db")
    outcome = run(options, broker, Display(io.StringIO()))
    assert outcome.report.good
    assert outcome.spans is not None
    spans = outcome.spans
    plan = make_plan(SEED, options.orders)

    # each once, and below a parent that came too
    ids = Counter(span.span_id for span in spans)
    assert ids.most_common(1)[0][1] == 1
    assert {span.parent_id for span in spans} - set(ids) <= {""}
    assert {span.name for span in spans if not span.parent_id} == {"take order"}

    by_message: dict[str, list[Span]] = {}
    for span in spans:
        if span.kind == "CONSUMER" and span.service == "rabbitmq":
            by_message.setdefault(str(span.attributes["messaging.message.id"]), []).append(span)
    for claim in plan.claims:
        if claim.fault == "overflowed":  # which of them are lost, only the run shows
            continue
        found = sorted(by_message[claim.message_id], key=lambda span: (span.start, span.error == "", span.end))
        told = [(span.attributes["auditor.verdict"], span.error) for span in found]
        expected = EXPECTED[claim.fault]
        if claim.fault == "redelivered" and len(told) == 1:  # both deliveries in one batch
            assert found[0].events == ("delivered again",)
            expected = expected[:1]
        assert told == expected, claim
        for span in found:
            assert span.attributes["auditor.order.id"] == claim.order
            assert span.attributes["auditor.order.stage"] == APPROVED
            assert span.attributes["auditor.flow"] == "crm->mes"
            assert span.attributes["auditor.time.approximate"] is True
            assert span.links[0] == (span.trace_id, span.parent_id)
            assert span.attributes.get("error.type") == (span.attributes["auditor.verdict"] if span.error else None)
            assert span.name.startswith(f"deliver crm.orders:order.approved.{claim.fault}") or claim.fault == "rejected"
        if found[0].error.startswith(("lost", "stuck")):
            assert found[0].end - found[0].start == DEADLINE * 1e9
            (waits,) = [span for span in spans if span.error == "the order waits here" and _is_of(span, claim.order)]
            assert waits.name == f"stage {APPROVED}"

    # an order without a fault has one trace, with all its stages but the last in their order
    good = next(order for order, line in plan.lines.items() if line in HEALTHY_LINES)
    (trace_id,) = {span.trace_id for span in spans if _is_of(span, good)}
    stages = sorted(
        (span for span in spans if span.trace_id == trace_id and span.name.startswith("stage ")), key=lambda s: s.start
    )
    assert [span.name for span in stages] == [f"stage {stage}" for stage in list(STAGES)[:-1]]
    assert all(one.end == other.start for one, other in itertools.pairwise(stages))
    assert {span.service for span in spans if span.trace_id == trace_id} == {"shop", "crm", "rabbitmq"}
    closed = by_message[message_id(SEED, good, "CLOSED")]
    assert [span.attributes["auditor.verdict"] for span in closed] == ["delivered"]


def test_each_fault_has_an_expectation() -> None:
    assert set(EXPECTED) == set(FAULTS) - {"overflowed"}


def _is_of(span: Span, order: str) -> bool:
    return span.attributes.get("auditor.order.id") == order
