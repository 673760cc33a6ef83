"""Presets find what these libraries put into a message.

The messages have the shapes that the libraries' documentation shows (named in `auditor.presets`).
"""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from auditor.core.events import Properties, Published
from auditor.core.extract import Fields
from auditor.flows import flow_table
from auditor.presets import PRESETS, PresetName
from auditor.settings import FlowSettings, Settings

TASK = "3b1f4b1e-54ae-4ba5-8d47-f6eea9cd4d2e"
GUID = "82d30000-5d21-0015-4a10-08d8d959e63c"


def found(preset: PresetName, body: Any, headers: dict[str, Any] | None = None, **more: Any) -> Fields:
    """Extract with a preset; `stages` among `more` goes to the flow, the rest are properties."""
    settings = {"stages": more.pop("stages", {}), "preset": preset}
    (flow,) = flow_table(Settings(flows=[FlowSettings(name="f", **settings)])).flows
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return flow.extract(
        Published("/", "e", ("k",), (), Properties(headers=headers or {}, **more), raw, "n", "c", "u", 0)
    )


def test_every_preset_that_may_be_named_exists() -> None:
    assert set(PRESETS) == set(get_args(PresetName))


def test_generic() -> None:
    assert found("generic", {"orderId": 17, "status": "SHIPPED", "user": {"id": "anna"}}, message_id="m1") == Fields(
        "m1", "17", "SHIPPED", "anna", None
    )
    assert found(
        "generic", {"order": {"id": "A"}, "error": {"message": "no paper"}}, {"x-stage": "PACKAGING"}
    ) == Fields(None, "A", "PACKAGING", None, "no paper")
    assert found("generic", {"orderId": "body"}, {"order-id": "header"}, user_id="crm").order_id == "header"
    assert found("generic", {"error": "broken"}, user_id="crm") == Fields(user_id="crm", error="broken")
    assert found("generic", b"<order/>", {"x-order-id": "A"}, content_type="application/xml").order_id == "A"


def test_spring_amqp() -> None:
    json_message: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": "UTF-8",
        "priority": 0,
        "delivery_mode": 2,
    }
    headers = {"__TypeId__": "com.shop.crm.OrderApproved"}
    body = {"orderId": "A-17", "status": "MANUFACTURING_APPROVED", "userId": "anna"}
    assert found("spring-amqp", body, headers, **json_message) == Fields(
        None, "A-17", "MANUFACTURING_APPROVED", "anna", None
    )
    # request/reply counts with the correlation id
    assert found("spring-amqp", {}, headers, correlation_id="1", message_id="m1") == Fields(message_id="m1")
    assert found("spring-amqp", {"orderId": "A"}, headers, stages={"OrderApproved": "APPROVED"}).stage == "APPROVED"
    republished = {
        **headers,
        "x-exception-message": "no such material",
        "x-exception-stacktrace": "java.lang.IllegalStateException: no such material\n\tat com.shop...",
        "x-original-exchange": "mes.orders",
        "x-original-routingKey": "order.approved",
    }
    assert found("spring-amqp", body, republished, **json_message).error == "no such material"


def masstransit(message: dict[str, Any], kind: str = "Shop.Contracts:OrderSubmitted") -> dict[str, Any]:
    return {
        "messageId": GUID,
        "requestId": None,
        "correlationId": "c0000000-5d21-0015-770c-08d8d959e63c",
        "conversationId": "82d30000-5d21-0015-770c-08d8d959e63c",
        "sourceAddress": "rabbitmq://localhost/crm_bus",
        "destinationAddress": f"rabbitmq://localhost/{kind}",
        "messageType": [f"urn:message:{kind}"],
        "message": message,
        "sentTime": "2026-02-25T06:52:21.095272Z",
        "headers": {},
        "host": {"machineName": "CRM", "processName": "Crm.Api", "massTransitVersion": "8.2.0"},
    }


def test_masstransit() -> None:
    envelope: dict[str, Any] = {"content_type": "application/vnd.masstransit+json", "delivery_mode": 2}
    headers = {"Content-Type": "application/vnd.masstransit+json", "publishId": "5"}
    body = masstransit({"orderId": "A-17", "userId": "anna", "timestamp": "2026-02-25T06:52:21Z"})
    stages = {"OrderSubmitted": "SUBMITTED"}
    assert found("masstransit", body, headers, message_id=GUID, stages=stages, **envelope) == Fields(
        GUID, "A-17", "SUBMITTED", "anna", None
    )
    assert found("masstransit", body, headers, **envelope) == Fields(GUID, "A-17", None, "anna", None)
    fault = masstransit(
        {
            "faultId": "f",
            "faultedMessageId": GUID,
            "exceptions": [{"exceptionType": "System.InvalidOperationException", "message": "no such material"}],
            "message": {"orderId": "A-17"},
        },
        "MassTransit:Fault[[Shop.Contracts:OrderSubmitted]]",
    )
    assert found("masstransit", fault, headers, stages=stages, **envelope) == Fields(
        GUID, "A-17", None, None, "no such material"
    )
    moved = {**headers, "MT-Reason": "fault", "MT-Fault-Message": "no such material"}
    assert found("masstransit", body, moved, **envelope).error == "no such material"
    raw = {"MessageId": GUID, "MT-MessageType": "urn:message:Shop.Contracts:OrderSubmitted"}
    assert found("masstransit", {"orderId": "A-17"}, raw, content_type="application/json", stages=stages) == Fields(
        GUID, "A-17", "SUBMITTED", None, None
    )


def test_nservicebus() -> None:
    headers = {
        "NServiceBus.MessageId": GUID,
        "NServiceBus.MessageIntent": "Publish",
        "NServiceBus.ConversationId": "c0000000-5d21-0015-770c-08d8d959e63c",
        "NServiceBus.CorrelationId": GUID,
        "NServiceBus.ContentType": "application/json",
        "NServiceBus.EnclosedMessageTypes": (
            "Shop.OrderSubmitted, Shop.Messages, Version=1.0.0.0, Culture=neutral, PublicKeyToken=null"
        ),
        "NServiceBus.OriginatingEndpoint": "Crm",
        "NServiceBus.TimeSent": "2026-02-25 06:52:21:095272 Z",
    }
    properties: dict[str, Any] = {
        "correlation_id": GUID,
        "content_type": "application/json",
        "type": "Shop.OrderSubmitted",
    }
    stages = {"OrderSubmitted": "SUBMITTED"}
    body = {"OrderId": "A-17", "UserId": "anna"}
    assert found("nservicebus", body, headers, message_id=GUID, stages=stages, **properties) == Fields(
        GUID, "A-17", "SUBMITTED", "anna", None
    )
    failed = {
        **headers,
        "NServiceBus.ExceptionInfo.ExceptionType": "System.InvalidOperationException",
        "NServiceBus.ExceptionInfo.Message": "no such material",
        "NServiceBus.FailedQ": "Mes",
    }
    assert found("nservicebus", {"orderId": 17, "Status": "SHIPPED"}, failed) == Fields(
        GUID, "17", "SHIPPED", None, "no such material"
    )
    xml = b'<?xml version="1.0"?><OrderSubmitted><OrderId>A-17</OrderId></OrderSubmitted>'
    assert found("nservicebus", xml, headers, content_type="text/xml", stages=stages) == Fields(
        GUID, None, "SUBMITTED", None, None
    )


@pytest.mark.parametrize("type_name", ["Shop.OrderSubmitted, Shop.Messages", "Shop.OrderSubmitted:Shop.Messages"])
def test_easynetq(type_name: str) -> None:
    properties: dict[str, Any] = {"type": type_name, "correlation_id": TASK, "delivery_mode": 2}
    body = {"OrderId": "A-17", "UserId": "anna"}
    assert found("easynetq", body, stages={"OrderSubmitted": "SUBMITTED"}, **properties) == Fields(
        TASK, "A-17", "SUBMITTED", "anna", None
    )
    assert found("easynetq", body, message_id="m1", **properties).message_id == "m1"


def test_easynetq_error_envelope() -> None:
    envelope = {
        "RoutingKey": "order.submitted",
        "Exchange": "Shop.OrderSubmitted, Shop.Messages",
        "Queue": "Shop.OrderSubmitted, Shop.Messages_mes",
        "Exception": "System.InvalidOperationException: no such material\n   at Mes.Handle(OrderSubmitted message)",
        "Message": json.dumps({"OrderId": "A-17", "UserId": "anna"}),
        "DateTime": "2026-02-25T06:52:21.095272Z",
        "BasicProperties": {"Type": "Shop.OrderSubmitted, Shop.Messages", "CorrelationId": TASK, "DeliveryMode": 2},
    }
    properties: dict[str, Any] = {"type": "EasyNetQ.SystemMessages.Error, EasyNetQ", "delivery_mode": 2}
    assert found("easynetq", envelope, **properties) == Fields(
        TASK,
        "A-17",
        None,
        "anna",
        "System.InvalidOperationException: no such material at Mes.Handle(OrderSubmitted message)",
    )
    for message in ("not JSON", "[1]", "12", "", "[" * 100_000, None, {"OrderId": "no string"}):
        assert found("easynetq", {**envelope, "Message": message}, **properties).order_id is None


def test_celery() -> None:
    headers = {
        "lang": "py",
        "task": "shop.tasks.submit_order",
        "id": TASK,
        "root_id": "11111111-54ae-4ba5-8d47-f6eea9cd4d2e",
        "parent_id": None,
        "group": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "()",
        "kwargsrepr": "{'order_id': 17}",
        "origin": "gen1@crm",
    }
    properties: dict[str, Any] = {
        "correlation_id": TASK,
        "content_type": "application/json",
        "content_encoding": "utf-8",
    }
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    stages = {"submit_order": "SUBMITTED"}
    assert found("celery", [[], {"order_id": 17, "user_id": 5}, embed], headers, stages=stages, **properties) == Fields(
        TASK, "17", "SUBMITTED", "5", None
    )
    assert found("celery", [[{"orderId": "A", "status": "SHIPPED"}], {}, embed], headers, **properties) == Fields(
        TASK, "A", "SHIPPED", None, None
    )
    assert found("celery", [[2, 2], {}, embed], headers, **properties) == Fields(message_id=TASK)
    assert found("celery", {"id": TASK, "task": "shop.tasks.submit_order", "kwargs": {"order_id": 17}}) == Fields(
        None, "17", None, None, None
    )


def test_celery_results() -> None:
    failure = {
        "task_id": TASK,
        "status": "FAILURE",
        "result": {"exc_type": "ValueError", "exc_message": ["no such material"], "exc_module": "builtins"},
        "traceback": "Traceback ...",
        "children": [],
    }
    properties: dict[str, Any] = {"correlation_id": TASK, "content_type": "application/json"}
    assert found("celery", failure, **properties) == Fields(TASK, None, None, None, "no such material")
    assert found("celery", {**failure, "status": "SUCCESS", "result": {"order_id": "A"}}, **properties) == Fields(
        TASK, "A", None, None, None
    )
