"""docs/integration.md: its settings are right, and find what the C# examples send, as they are documented to write it.

The Java example is compiled and run by tests/outside.
"""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from auditor.settings import load
from tests.acceptance.harness import Auditor
from tests.acceptance.scene import open_scene

DOC = (Path(__file__).parents[2] / "docs" / "integration.md").read_text()
SETTINGS = re.findall(r"^```toml\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def flow(settings: str, folder: Path, **other: Any) -> dict[str, Any]:
    """The one flow of a block of settings, as a dictionary."""
    file = folder / "flows.toml"
    file.write_text(settings)
    (flow,) = load(file).flows
    return {**flow.model_dump(mode="json", exclude_unset=True), **other}


@pytest.mark.parametrize("text", SETTINGS)
def test_the_settings_are_right(text: str, tmp_path: Path) -> None:
    assert flow(text, tmp_path)


async def test_what_the_examples_in_csharp_send_is_found(auditor: Auditor, tmp_path: Path) -> None:
    spring, masstransit = SETTINGS
    auditor.settings["flows"] = [
        flow(spring, tmp_path, preset="generic", name="client"),
        flow(masstransit, tmp_path, name="masstransit"),
    ]
    auditor.start()
    await auditor.reading()
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    async with open_scene(auditor, "csharp") as scene:
        scene.prefix = ""
        # RabbitMQ.Client: the properties of the example, and the body in camel case
        inbox = await scene.queue("mes.orders")
        exchange = await scene.exchange("crm.orders", "topic")
        await inbox.bind(exchange, "order.#")
        await scene.consume(inbox)
        await scene.publish(
            ids[0],
            "order.approved",
            exchange=exchange,
            body=json.dumps({"orderId": "A-1", "status": "MANUFACTURING_APPROVED"}).encode(),
            content_type="application/json",
            delivery_mode=2,
            headers={"x-user-id": "jane", "traceparent": TRACEPARENT},
        )
        # MassTransit: an exchange of the type, one of the endpoint, its queue; the envelope; headers in both places
        inbox = await scene.queue("mes-orders")
        endpoint = await scene.exchange("mes-orders")
        exchange = await scene.exchange("Crm:OrderApproved")
        await endpoint.bind(exchange)
        await inbox.bind(endpoint)
        await scene.consume(inbox)
        headers = {"x-user-id": "jane", "traceparent": TRACEPARENT, "MT-Activity-Id": TRACEPARENT}
        envelope = {
            "messageId": ids[1],
            "conversationId": str(uuid.uuid4()),
            "sourceAddress": "rabbitmq://broker/crm_bus?temporary=true",
            "destinationAddress": "rabbitmq://broker/Crm:OrderApproved",
            "messageType": ["urn:message:Crm:OrderApproved"],
            "message": {"orderId": "A-2"},
            "sentTime": "2026-11-22T12:00:00Z",
            "headers": headers,
            "host": {"machineName": "crm", "massTransitVersion": "8.3.0.0"},
        }
        await scene.publish(
            ids[1],
            "",
            exchange=exchange,
            body=json.dumps(envelope).encode(),
            content_type="application/vnd.masstransit+json",
            delivery_mode=2,
            headers={**headers, "publishId": "1", "Content-Type": "application/vnd.masstransit+json"},
        )
        await scene.arrived(2)
    for id, preset, order in zip(ids, ("client", "masstransit"), ("A-1", "A-2"), strict=True):
        (row,) = await auditor.until(
            lambda reader, id=id: [row for row in reader.message(id) if row["state"] == "delivered"],  # type: ignore[misc]
            "it is recorded as delivered",
        )
        found = (row["flow"], row["order_id"], row["stage"], row["user_id"])
        assert found == (preset, order, "MANUFACTURING_APPROVED", "jane")
        assert auditor.ask(lambda reader, row=row: reader.message_trace(row)) == TRACE  # type: ignore[misc]
