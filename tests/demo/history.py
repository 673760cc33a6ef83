"""A made-up demo run in which everything went as planned: the facts, and the ledger's hops of a perfect audit."""

from __future__ import annotations

from auditor.core.hops import State
from auditor.demo.facts import Facts
from auditor.demo.faults import DEAD_LETTERS, FAULTS, KEPT, Plan, queue_of
from auditor.demo.orders import message_id
from auditor.demo.report import SeenHop

APPROVAL = "MANUFACTURING_APPROVED"


def perfect_run(plan: Plan) -> tuple[Facts, list[SeenHop]]:
    """The approvals of all orders (the other messages are alike in every order), as they go by the plan."""
    facts = Facts()
    hops: list[SeenHop] = []
    overflowed = [order for order, line in plan.lines.items() if line == "overflowed"]
    for number, (order, line) in enumerate(plan.lines.items()):
        each = message_id(plan.seed, order, APPROVAL)
        fault = FAULTS.get(line)
        kept = order in overflowed[-KEPT:]
        deliveries = fault.deliveries if fault and not kept else 1
        copies = fault.copies if fault else 1
        state, reason = fault.expected[0] if fault and not kept else (State.DELIVERED, None)
        queue = "" if fault and fault.queue is None else queue_of(line)
        for copy in range(copies):
            facts.add("crm", {"did": "published", "message_id": each, "order": order, "stage": APPROVAL})
            number_of = 2 * number + copy
            hops.append(SeenHop(number_of, each, order, queue, state, reason, deliveries // copies))
        for _ in range(deliveries):
            facts.add("mes", {"did": "received", "message_id": each, "order": order, "stage": APPROVAL, "queue": queue})
        if fault and fault.consumer == "rejects":
            facts.add(
                "mes",
                {"did": "received", "message_id": each, "order": order, "stage": APPROVAL, "queue": DEAD_LETTERS},
            )
            hops.append(SeenHop(2 * number, each, order, DEAD_LETTERS, State.DELIVERED, None, 1))
    return facts, hops
