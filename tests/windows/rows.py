"""Rows of the outbox with everything filled in, of which a test names what it is about."""

from __future__ import annotations

from typing import Any

from auditor.core.hops import State
from auditor.core.outgoing import PUBLISH, Outgoing

START = 1_760_000_000_000_000  # microseconds since the epoch
SECOND = 1_000_000
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"


def hop(message: int = 7, number: int = 0, state: State = State.DELIVERED, **others: Any) -> Outgoing:
    """A hop that was delivered after five milliseconds."""
    values: dict[str, Any] = {
        "key": (message, number, 1, 1),
        "message": message,
        "hop": number,
        "state": state,
        "reason": None,
        "attempts": 1 if state in (State.DELIVERED, State.LATE) else 0,
        "before": None,
        "queue": "mes.orders",
        "flow": "crm->mes",
        "first_flow": "crm->mes",
        "deadline": 60 * SECOND,
        "wait": 5_000 if state in (State.DELIVERED, State.LATE) else None,
        "judged_at": None,
        "redelivered": False,
        "further_waits": (),
        "vhost": "/",
        "exchange": "crm.orders",
        "routing_key": "order.approved",
        "message_id": f"m-{message}",
        "identity": 1000 + message,
        "order_id": "A-1",
        "stage": "APPROVED",
        "sender": "crm",
        "size": 123,
        "trace_context": None,
        "published_at": START,
        "time_source": "arrival",
        "correlation_id": "c-1",
    }
    return Outgoing(**(values | others))


def publish(message: int = 7, **others: Any) -> Outgoing:
    """The publish of such a message."""
    return hop(message, PUBLISH, State.IN_FLIGHT, attempts=0, wait=None, **others)
