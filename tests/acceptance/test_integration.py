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
CLIENT, MASSTRANSIT = re.findall(r"^```csharp\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)
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


def said(example: str, pattern: str) -> tuple[str, ...]:
    """What stands in an example where the pattern has its groups."""
    found = re.findall(pattern, example)
    assert len(found) == 1, f"{pattern} stands {len(found)} times in the example"
    return found[0] if isinstance(found[0], tuple) else (found[0],)


def members(example: str, record: str) -> list[str]:
    """The members of a record, as the web's JSON has them: in camel case."""
    (listed,) = said(example, rf"record {record}\((.*?)\)")
    names = [parameter.split()[-1] for parameter in listed.split(",")]
    return [name[0].lower() + name[1:] for name in names]


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
        to, key = said(CLIENT, r'BasicPublishAsync\("(.*?)", "(.*?)", mandatory: true, basicProperties: properties')
        exchange = await scene.exchange(to, "topic")
        await inbox.bind(exchange, "order.#")
        await scene.consume(inbox)
        said(CLIENT, r"MessageId = Guid.NewGuid\(\)\.ToString\(\),")
        said(CLIENT, r"DeliveryMode = DeliveryModes\.Persistent,")
        said(CLIENT, r"new JsonSerializerOptions\(JsonSerializerDefaults\.Web\)")
        user, value = said(CLIENT, r'Headers = .*\["(.*?)"\] = "(.*?)"')
        (context,) = said(CLIENT, r'properties\.Headers\["(.*?)"\] = activity\.Id')
        values = said(CLIENT, r'new OrderStep\("(.*?)", "(.*?)"\)')
        await scene.publish(
            ids[0],
            key,
            exchange=exchange,
            body=json.dumps(dict(zip(members(CLIENT, "OrderStep"), values, strict=True))).encode(),
            content_type=said(CLIENT, r'ContentType = "(.*?)"')[0],
            delivery_mode=2,
            headers={user: value, context: TRACEPARENT},
        )
        # MassTransit: an exchange of the type, one of the endpoint, its queue; the envelope; headers in both places
        inbox = await scene.queue("mes-orders")
        endpoint = await scene.exchange("mes-orders")
        (namespace,), (record,) = (
            said(MASSTRANSIT, r"namespace (\w+);"),
            said(MASSTRANSIT, r"Publish\(new (\w+)\(order\)"),
        )
        exchange = await scene.exchange(f"{namespace}:{record}")
        await endpoint.bind(exchange)
        await inbox.bind(endpoint)
        await scene.consume(inbox)
        (user,) = said(MASSTRANSIT, r'context\.Headers\.Set\("(.*?)", user\)')
        (context,) = said(MASSTRANSIT, r'context\.Headers\.Set\("(.*?)", activity\.Id\)')
        (order,) = members(MASSTRANSIT, record)
        headers = {user: "jane", context: TRACEPARENT, "MT-Activity-Id": TRACEPARENT}
        envelope = {
            "messageId": ids[1],
            "conversationId": str(uuid.uuid4()),
            "sourceAddress": "rabbitmq://broker/crm_bus?temporary=true",
            "destinationAddress": f"rabbitmq://broker/{namespace}:{record}",
            "messageType": [f"urn:message:{namespace}:{record}"],
            "message": {order: "A-2"},
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
    for id, preset, order in zip(ids, ("client", "masstransit"), ("A-1047", "A-2"), strict=True):
        (row,) = await auditor.until(
            lambda reader, id=id: [row for row in reader.message(id) if row["state"] == "delivered"],  # type: ignore[misc]
            "it is recorded as delivered",
        )
        found = (row["flow"], row["order_id"], row["stage"], row["user_id"])
        assert found == (preset, order, "MANUFACTURING_APPROVED", "jane")
        assert auditor.ask(lambda reader, row=row: reader.message_trace(row)) == TRACE  # type: ignore[misc]
