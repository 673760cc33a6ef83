"""Events that the management API gave away: the same event as the tap would have read."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from auditor.core.events import Delivered, Properties, Published
from auditor.errors import BrokerError
from auditor.tap.poison import cannot_be_delivered, event_of

LONG = "q" * 250


def answer(key: str, **headers: Any) -> dict[str, Any]:
    """What RabbitMQ 3.10.8 answers for a trace message, shortened."""
    return {
        "routing_key": key,
        "payload": base64.b64encode(b"\xff{}").decode(),
        "payload_encoding": "base64",
        "properties": {
            "headers": {
                "vhost": "/",
                "exchange_name": "crm",
                "routing_keys": ["order.new", "copy"],
                "node": "rabbit@a",
                "connection": "1 -> 2",
                "user": "mes",
                "properties": {"message_id": "m1", "priority": 3, "headers": {"order": "A-1"}, "cluster_id": "x"},
                **headers,
            }
        },
    }


def test_a_delivery() -> None:
    properties = Properties(message_id="m1", priority=3, headers={"order": "A-1"})
    assert event_of(answer(f"deliver.{LONG}", redelivered=1), 7) == Delivered(
        "/", LONG, "crm", ("order.new", "copy"), True, properties, b"\xff{}", "rabbit@a", "1 -> 2", "mes", 7
    )


def test_a_publish() -> None:
    event = event_of(answer(f"publish.{LONG}", routed_queues=[LONG]), 7)
    assert isinstance(event, Published)
    assert event.routed_queues == (LONG,)


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(BrokerError):
        event_of(answer("something"), 7)
    with pytest.raises(KeyError):
        event_of({**answer("deliver.q"), "properties": {}}, 7)


@pytest.mark.parametrize(("name", "poison"), [("q" * 247, False), ("q" * 248, True), ("ß" * 124, True)])
def test_what_cannot_be_delivered_is_told_by_its_name_in_bytes(name: str, poison: bool) -> None:
    delivered = event_of(answer(f"deliver.{name}", redelivered=0), 7)
    published = event_of(answer("publish.", exchange_name=name, routed_queues=[]), 7)
    assert cannot_be_delivered(delivered) is poison
    assert cannot_be_delivered(published) is poison
