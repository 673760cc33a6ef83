"""Rows with everything filled in, of which a test names what it is about."""

from __future__ import annotations

from typing import Any

from auditor.core.changes import DeliveryRow, HopRow, MessageRow, OrphanRow
from auditor.core.hops import State
from tests.ledger.synthetic import START


def message(id: int, **others: Any) -> MessageRow:
    values: dict[str, Any] = {
        "id": id,
        "vhost": "/",
        "exchange": "crm.orders",
        "routing_key": "order.changed",
        "message_id": f"message-{id}",
        "identity": 1000 + id,
        "order_id": "ORD-1",
        "stage": "SUBMITTED",
        "sender": "crm",
        "user_id": None,
        "error": None,
        "user": "crm-user",
        "connection": "10.0.0.1:41000 -> 10.0.0.9:5672",
        "node": "rabbit@a",
        "priority": 0,
        "size": 100,
        "trace_context": None,
        "published_at": START + id * 1_000_000,
        "time_source": "arrival",
    }
    return MessageRow(**(values | others))


def hop(message: int, number: int = 0, **others: Any) -> HopRow:
    values: dict[str, Any] = {
        "message": message,
        "number": number,
        "queue": "mes.orders",
        "flow": "crm->mes",
        "state": State.IN_FLIGHT,
        "reason": None,
        "deadline": 60_000_000,
        "wait": None,
        "attempts": 0,
        "judged_at": None,
    }
    return HopRow(**(values | others))


def delivered(message: int, number: int = 0, **others: Any) -> HopRow:
    return hop(message, number, **({"state": State.DELIVERED, "wait": 5000, "attempts": 1} | others))


def delivery(message: int, hop: int = 0, attempt: int = 1, **others: Any) -> DeliveryRow:
    values: dict[str, Any] = {
        "message": message,
        "hop": hop,
        "attempt": attempt,
        "wait": 5000,
        "user": "mes-user",
        "connection": "10.0.0.2:42000 -> 10.0.0.9:5672",
        "redelivered": False,
    }
    return DeliveryRow(**(values | others))


def orphan(id: int, **others: Any) -> OrphanRow:
    values: dict[str, Any] = {
        "id": id,
        "vhost": "/",
        "queue": "mes.orders",
        "exchange": "crm.orders",
        "routing_key": "order.changed",
        "identity": 77,
        "message_id": "orphan-1",
        "order_id": "ORD-9",
        "stage": "CLOSED",
        "flow": "crm->mes",
        "size": 10,
        "user": "mes-user",
        "connection": "10.0.0.2:42000 -> 10.0.0.9:5672",
        "redelivered": True,
        "received_at": START,
    }
    return OrphanRow(**(values | others))
