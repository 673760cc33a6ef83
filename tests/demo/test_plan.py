"""The plan follows from the seed and is what the table of faults says."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from auditor.demo import orders
from auditor.demo.faults import FAULTS, FEWEST_ORDERS, HEALTHY_LINES, KEPT, make_plan, queue_of


def test_the_same_seed_gives_the_same_plan_and_another_gives_another() -> None:
    assert make_plan(3, 150) == make_plan(3, 150)
    assert make_plan(3, 150).lines != make_plan(4, 150).lines


@pytest.mark.parametrize("wanted", [0, 1, FEWEST_ORDERS, 30, 150, 2000])
def test_every_fault_is_planned_and_some_orders_stay_healthy(wanted: int) -> None:
    plan = make_plan(1, wanted)
    assert len(plan.orders) == max(wanted, FEWEST_ORDERS)
    on_line = Counter(plan.lines.values())
    for name in FAULTS:
        assert plan.planted[name] >= 1
        assert on_line[name] == plan.planted[name] + (KEPT if name == "overflowed" else 0)
    assert any(line in HEALTHY_LINES for line in plan.lines.values())
    hanging = sum(plan.planted[name] for name, fault in FAULTS.items() if fault.hangs)
    assert plan.closing == len(plan.orders) - hanging


def test_claims_name_the_message_and_queue_of_the_approval() -> None:
    plan = make_plan(5, 100)
    assert {claim.order for claim in plan.claims} == {order for order, line in plan.lines.items() if line in FAULTS}
    for claim in plan.claims:
        assert claim.message_id == orders.message_id(5, claim.order, "MANUFACTURING_APPROVED")
        assert claim.queue == ("" if claim.fault == "unroutable" else queue_of(claim.fault))


def test_only_redelivered_and_duplicated_messages_let_an_order_go_on() -> None:
    assert {name for name, fault in FAULTS.items() if not fault.hangs} == {"redelivered", "duplicated"}


def test_message_ids_differ_by_seed_order_and_kind() -> None:
    ids = {
        orders.message_id(seed, orders.order_id(number), kind)
        for seed in range(2)
        for number in range(1, 5)
        for kind in (*orders.STAGES, orders.PRICE_REQUEST)
    }
    assert len(ids) == 2 * 4 * 11


def test_a_body_tells_order_stage_and_the_same_customer_each_time() -> None:
    bodies = [json.loads(orders.body(1, "A-00001", kind)) for kind in orders.STAGES]
    assert [body["order"] for body in bodies] == [{"id": "A-00001", "stage": stage} for stage in orders.STAGES]
    assert len({body["user"] for body in bodies}) == 1
    assert "stage" not in json.loads(orders.body(1, "A-00001", orders.PRICE_REQUEST))["order"]
