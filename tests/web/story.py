"""A ledger with a day's trouble in it, written by the writer itself, as of now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from auditor.core.changes import Changes
from auditor.core.hops import Reason, State
from auditor.core.stages import Orders, Recall, Stage, StageTable
from auditor.ledger.writer import Ledger
from tests.ledger import rows
from tests.ledger.synthetic import status

SECOND = 1_000_000
HOUR = 3600 * SECOND
STAGES = ("INITIATED", "SUBMITTED", "PRICE_CALCULATED", "MANUFACTURING_APPROVED", "MANUFACTURING_STARTED", "CLOSED")


class Story:
    """Writes a ledger, message by message."""

    def __init__(self, path: Path, now: int) -> None:
        self.now = now
        self._ledger = Ledger.open(path)
        self._orders = Orders(
            StageTable(Stage(name, "", HOUR) for name in STAGES), Recall(lambda order: None, lambda entry: [])
        )
        self._changes = Changes()
        self._id = self._ledger.next_message_id

    def send(self, order: str | None, stage: str | None, flow: str, at: int, **hop: Any) -> int:
        """Add a message on a flow; `hop` says what became of it, delivered after 5 ms if nothing."""
        number, self._id = self._id, self._id + 1
        sender, _, receiver = flow.partition("->")
        queue = hop.pop("queue", f"{receiver}.orders")
        message: dict[str, Any] = {
            name: hop.pop(name) for name in ("message_id", "error", "exchange", "trace_context") if name in hop
        }
        values: dict[str, Any] = {
            "exchange": f"{sender}.orders",
            "routing_key": "order.changed",
            "node": "rabbit@a",
            **message,
        }
        self._changes.messages.append(
            rows.message(number, order_id=order, stage=stage, sender=sender, published_at=at, **values)
        )
        make = rows.hop if "state" in hop else rows.delivered
        row = make(number, queue=queue, flow=flow, **hop)
        self._changes.hops.append(row)
        if row.wait is not None:
            self._changes.deliveries.append(rows.delivery(number, wait=row.wait, user=f"{receiver}-user"))
        return number

    def commit(self, **standing: Any) -> None:
        """Write what was added."""
        self._changes.messages.sort(key=lambda message: message.id)
        self._changes.entries += self._orders.see(self._changes.messages)
        self._ledger.commit(self._changes, status=status(updated_at=self.now, **standing))
        self._changes = Changes()

    def close(self) -> None:
        self._ledger.close()


def write(path: Path, now: int) -> None:
    """Write orders A-1 to A-9."""
    story = Story(path, now)
    faults: dict[int, dict[str, Any]] = {
        3: {"state": State.LOST, "reason": Reason.QUEUE_EMPTY},
        5: {"state": State.STUCK, "reason": Reason.NO_CONSUMER},
        7: {"state": State.UNROUTABLE, "reason": Reason.NO_QUEUE, "queue": ""},
        8: {"state": State.LATE, "wait": 95 * SECOND, "attempts": 1},
    }
    for number in range(1, 10):
        at = now - (10 - number) * HOUR
        order = f"A-{number}"
        story.send(order, "INITIATED", "shop->crm", at, wait=4_000)
        story.send(order, "SUBMITTED", "shop->crm", at + 2 * SECOND, wait=3_000)
        story.send(order, None, "crm->mes", at + 3 * SECOND, wait=40_000)
        story.send(order, "PRICE_CALCULATED", "mes->crm", at + 5 * SECOND, wait=2_500)
        fault = dict(faults.get(number, {}))
        if fault.get("state") in (State.LOST, State.STUCK):
            fault["judged_at"] = at + 66 * SECOND
        story.send(order, "MANUFACTURING_APPROVED", "crm->mes", at + 6 * SECOND, **fault)
        if number not in (3, 5, 7):
            story.send(order, "MANUFACTURING_STARTED", "mes->crm", at + 120 * SECOND, wait=7_000)
            story.send(order, "CLOSED", "crm->mes", at + 160 * SECOND, wait=6_000)
    story.commit()
    story.close()
