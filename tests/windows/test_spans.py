"""What is told of each thing that happens: names, kinds, places, times, attributes, status, links."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from auditor.core.hops import Reason, State
from auditor.core.outgoing import OrderTrace, Outgoing, message_trace_id, order_key, order_trace_id
from auditor.demo.receiver import Span, read
from auditor.windows.otlp import SCHEMA_URL, request
from auditor.windows.spans import Builder, Built, Parent
from tests.windows.rows import CONTEXT, SECOND, SPAN, START, TRACE, UNSAMPLED, hop, publish

ORDER = order_trace_id("/", "A-1").hex()
OTHER = f"00-{'1' * 32}-{'2' * 16}-01"


def builder(parent: Parent = "message", ratio: float = 1.0) -> Builder:
    return Builder(host="rabbit.internal", port=5672, parent=parent, ratios={"crm->mes": ratio})


def build(*rows: Outgoing, maker: Builder | None = None, orders: dict[int, OrderTrace] | None = None) -> Built:
    return (maker or builder()).build(rows, orders or {})


def spans(*rows: Outgoing, **others: Any) -> list[Span]:
    return list(read(request(build(*rows, **others).spans, service="rabbitmq", version="1.2")))


def told(built: Built) -> dict[int, OrderTrace]:
    return {order.key: order for order in built.orders}


# where a span belongs


def test_a_hop_whose_message_brings_a_context_is_its_child_and_links_to_it() -> None:
    (span,) = spans(hop(order_id=None, trace_context=CONTEXT))
    assert span == Span(
        service="rabbitmq",
        name="deliver crm.orders:order.approved:mes.orders",
        kind="CONSUMER",
        trace_id=TRACE,
        span_id=span.span_id,
        parent_id=SPAN,
        start=START * 1000,
        end=(START + 5_000) * 1000,
        attributes={
            "messaging.system": "rabbitmq",
            "messaging.destination.name": "crm.orders:order.approved:mes.orders",
            "messaging.operation.name": "deliver",
            "messaging.rabbitmq.destination.routing_key": "order.approved",
            "messaging.message.id": "m-7",
            "messaging.message.conversation_id": "c-1",
            "messaging.message.body.size": 123,
            "server.address": "rabbit.internal",
            "server.port": 5672,
            "auditor.synthetic": True,
            "auditor.flow": "crm->mes",
            "auditor.verdict": "delivered",
            "auditor.attempts": 1,
            "auditor.order.stage": "APPROVED",
            "auditor.time.approximate": True,
        },
        error="",
        links=((TRACE, SPAN),),
        events=(),
    )


def test_an_order_without_contexts_has_a_trace_of_its_own_with_root_and_publishes() -> None:
    root, sent, delivered = spans(publish(), hop())
    assert [span.trace_id for span in (root, sent, delivered)] == [ORDER] * 3
    assert (root.name, root.kind, root.parent_id) == ("order", "INTERNAL", "")
    assert (sent.name, sent.kind, sent.parent_id) == ("send crm.orders:order.approved", "PRODUCER", root.span_id)
    assert (delivered.kind, delivered.parent_id, delivered.links) == ("CONSUMER", sent.span_id, ())
    assert root.attributes["auditor.order.id"] == sent.attributes["auditor.order.id"] == "A-1"
    assert sent.attributes["messaging.operation.type"] == "send"
    assert sent.attributes["auditor.sender"] == "crm"
    assert "messaging.operation.type" not in delivered.attributes  # no well-known type is true of it
    # its next message finds the root there
    assert [span.name.partition(" ")[0] for span in spans(publish(8), orders=told(build(publish())))] == ["send"]


def test_a_message_without_order_or_context_is_a_trace_of_its_own() -> None:
    sent, delivered = spans(publish(order_id=None), hop(order_id=None))
    assert sent.trace_id == delivered.trace_id == message_trace_id("/", 1007, 7).hex()
    assert (sent.parent_id, delivered.parent_id) == ("", sent.span_id)


def test_a_message_without_a_context_joins_the_trace_that_its_order_began_in() -> None:
    first = build(publish(trace_context=CONTEXT), hop(trace_context=CONTEXT))
    sent, delivered = spans(publish(8, stage=None), hop(8), orders=told(first))
    assert (sent.trace_id, sent.parent_id) == (TRACE, SPAN)
    assert (delivered.trace_id, delivered.parent_id) == (TRACE, sent.span_id)


def test_a_message_with_another_context_than_its_order_links_to_the_order() -> None:
    first = build(publish(trace_context=CONTEXT))
    (delivered,) = spans(hop(8, trace_context=OTHER), orders=told(first))
    assert (delivered.trace_id, delivered.parent_id) == ("1" * 32, "2" * 16)
    assert delivered.links == (("1" * 32, "2" * 16), (TRACE, SPAN))


def test_with_the_order_as_parent_a_hop_is_below_its_root_and_links_to_the_message() -> None:
    rows = (publish(trace_context=CONTEXT), hop(trace_context=CONTEXT))
    root, delivered = spans(*rows, maker=builder("order"))
    assert (root.trace_id, root.name) == (ORDER, "order")
    assert (delivered.trace_id, delivered.parent_id, delivered.links) == (ORDER, root.span_id, ((TRACE, SPAN),))


def test_a_tracestate_is_handed_on_to_all_that_is_in_its_trace_and_to_no_other() -> None:
    first = build(publish(trace_context=f"{CONTEXT} a=1,b=2"), hop(trace_context=f"{CONTEXT} a=1,b=2"))
    (delivered,) = first.spans
    assert (delivered.trace_state, delivered.links[0].trace_state) == ("a=1,b=2", "a=1,b=2")
    sent, joined, other = build(
        publish(8, stage=None), hop(8), hop(9, trace_context=f"{OTHER} c=3"), orders=told(first)
    ).spans
    assert (sent.trace_state, joined.trace_state) == ("a=1,b=2", "a=1,b=2")
    assert (other.trace_state, [link.trace_state for link in other.links]) == ("c=3", ["c=3", "a=1,b=2"])
    # in a trace of the order's own there is none; the link has what it links to
    rows = (publish(trace_context=f"{CONTEXT} a=1"), hop(trace_context=f"{CONTEXT} a=1"))
    root, below = build(*rows, maker=builder("order")).spans
    assert (root.trace_state, below.trace_state, below.links[0].trace_state) == ("", "", "a=1")


@pytest.mark.parametrize("header", ["garbage", f"00-{'0' * 32}-{SPAN}-01", "00-" + "a" * 250, f"ff{CONTEXT[2:]}"])
def test_a_context_that_is_none_is_as_if_it_were_not_there_and_counted(header: str) -> None:
    built = build(publish(trace_context=header), hop(trace_context=header))
    assert built.invalid_contexts == 1
    assert [span.name.partition(" ")[0] for span in built.spans] == ["order", "send", "deliver"]


# what is said of each state


@pytest.mark.parametrize(
    ("row", "error", "seconds"),
    [
        (hop(state=State.LATE, wait=90 * SECOND), "", 90),
        (hop(state=State.STUCK, reason=Reason.NO_CONSUMER), "stuck: no_consumer", 60),
        (hop(state=State.LOST, reason=Reason.OVERTAKEN), "lost: overtaken", 60),
        (hop(state=State.UNKNOWN, reason=Reason.BLIND), "", 60),
        (hop(state=State.UNROUTABLE, reason=Reason.NO_QUEUE, queue=""), "unroutable: no_queue", 0),
        (
            hop(state=State.DEAD_LETTERED, reason=Reason.EXPIRED, judged_at=START + 3 * SECOND),
            "dead_lettered: expired",
            3,
        ),
    ],
    ids=lambda value: value.state if isinstance(value, Outgoing) else None,
)
def test_each_verdict_looks_as_it_is(row: Outgoing, error: str, seconds: int) -> None:
    *_, span = spans(row._replace(order_id=None, trace_context=CONTEXT))
    assert span.error == error
    assert (span.end - span.start) / 1e9 == seconds
    assert span.attributes["auditor.verdict"] == row.state
    assert span.attributes.get("auditor.reason") == row.reason
    assert span.attributes.get("error.type") == (row.state if error else None)
    assert span.name == ("deliver crm.orders:order.approved" + (":mes.orders" if row.queue else ""))


def test_a_late_delivery_is_a_second_span_that_links_to_the_first() -> None:
    stuck = hop(state=State.STUCK, reason=Reason.WAITING, trace_context=CONTEXT, order_id=None)
    late = hop(state=State.LATE, before=State.STUCK, wait=70 * SECOND, trace_context=CONTEXT, order_id=None)
    (first,), (second,) = spans(stuck), spans(late)
    assert first.span_id != second.span_id
    assert second.links == ((TRACE, SPAN), (TRACE, first.span_id))


def test_a_redelivery_is_a_second_span_from_the_delivery_before_it() -> None:
    first = hop(trace_context=CONTEXT, order_id=None)
    again = first._replace(before=State.DELIVERED, attempts=3, further_waits=((2, 2 * SECOND), (3, 5 * SECOND)))
    (one,), (other,) = spans(first), spans(again)
    assert (other.start, other.end) == ((START + 2 * SECOND) * 1000, (START + 5 * SECOND) * 1000)
    assert (other.attributes["auditor.redelivered"], other.attributes["auditor.attempts"]) == (True, 3)
    assert other.links == ((TRACE, SPAN), (TRACE, one.span_id))
    assert "auditor.redelivered" not in one.attributes


def test_deliveries_before_the_first_was_told_are_events() -> None:
    (span,) = spans(hop(trace_context=CONTEXT, order_id=None, attempts=2, further_waits=((2, SECOND),)))
    assert (span.end, span.events) == ((START + 5_000) * 1000, ("delivered again",))
    assert span.attributes["auditor.redelivered"] is True


def test_a_delivery_that_was_seen_before_its_publish_takes_no_time() -> None:
    (span,) = spans(hop(trace_context=CONTEXT, order_id=None, wait=-300))
    assert span.end == span.start


def test_a_time_that_is_exact_does_not_say_that_it_is_approximate() -> None:
    (span,) = spans(hop(trace_context=CONTEXT, order_id=None, time_source="broker"))
    assert "auditor.time.approximate" not in span.attributes


def test_names_have_no_ids_in_them() -> None:
    key = "orders.A-1.m-7"
    *_, sent, delivered = spans(publish(routing_key=key), hop(routing_key=key, queue="amq.gen-Xq1"))
    assert sent.name == "send crm.orders:orders.{order}.{message}"
    assert delivered.name == "deliver crm.orders:orders.{order}.{message}:{anonymous}"
    assert delivered.attributes["messaging.destination.name"] == f"crm.orders:{key}:amq.gen-Xq1"
    assert delivered.attributes["messaging.destination.template"] == delivered.name.removeprefix("deliver ")


@pytest.mark.parametrize(
    ("exchange", "key", "queue", "sent", "delivered"),
    [
        ("", "mes.orders", "mes.orders", "mes.orders", "mes.orders"),
        ("crm", "", "q", "crm", "crm:q"),
        ("crm", "k", "q", "crm:k", "crm:k:q"),
        ("", "", "", "amq.default", "amq.default"),
    ],
)
def test_destinations_are_named_by_the_conventions(
    exchange: str, key: str, queue: str, sent: str, delivered: str
) -> None:
    names: dict[str, Any] = {"exchange": exchange, "routing_key": key, "queue": queue}
    *_, one, other = spans(publish(**names), hop(**names))
    assert one.attributes["messaging.destination.name"] == sent
    assert other.attributes["messaging.destination.name"] == delivered


# stages


def test_entering_a_stage_tells_of_the_one_before() -> None:
    first = build(publish(1, stage="SUBMITTED"))
    root = first.spans[0]
    stage, _ = spans(publish(2, stage="APPROVED", published_at=START + 9 * SECOND), orders=told(first))
    assert (stage.name, stage.kind, stage.trace_id) == ("stage SUBMITTED", "INTERNAL", ORDER)
    assert stage.parent_id == root.span_id.hex()
    assert (stage.start, stage.end) == (START * 1000, (START + 9 * SECOND) * 1000)
    assert stage.attributes["auditor.order.stage"] == "SUBMITTED"
    assert stage.attributes["auditor.order.next_stage"] == "APPROVED"


def test_a_message_of_the_same_or_no_stage_ends_none() -> None:
    rows = (publish(1), publish(2), publish(3, stage=None))
    assert not [span for span in spans(*rows) if span.name.startswith("stage")]


def test_the_stage_in_which_an_order_waits_is_told_with_the_verdict() -> None:
    first = build(publish(1))
    found = spans(hop(1, state=State.STUCK, reason=Reason.WAITING), orders=told(first))
    (stage,) = [span for span in found if span.name.startswith("stage")]
    assert (stage.name, stage.error) == ("stage APPROVED", "the order waits here")
    assert stage.end - stage.start == 60 * 1e9
    # once, whatever else becomes of it
    further = spans(hop(1, state=State.LOST, before=State.STUCK, reason=Reason.QUEUE_EMPTY), orders=told(first))
    assert not [span for span in further if span.name.startswith("stage")]


# sampling


def test_a_healthy_hop_goes_by_the_flag_of_its_message_and_a_verdict_always() -> None:
    assert build(publish(trace_context=UNSAMPLED), hop(trace_context=UNSAMPLED)).unsampled == 2
    (lost,) = spans(hop(trace_context=UNSAMPLED, order_id=None, state=State.LOST, reason=Reason.QUEUE_EMPTY))
    assert (lost.trace_id, lost.parent_id) == (TRACE, SPAN)


def test_a_message_without_a_context_goes_by_the_flag_of_its_order() -> None:
    first = build(publish(trace_context=UNSAMPLED))
    assert build(publish(8), hop(8), orders=told(first)).spans == []


def test_a_ratio_lets_whole_orders_through() -> None:
    maker = builder(ratio=0.3)
    through = []
    for number in range(400):
        rows = [row for message in (1, 2) for row in (publish(message), hop(message))]
        built = build(*(row._replace(order_id=f"A-{number}") for row in rows), maker=maker)
        assert len(built.spans) in (0, 5)
        assert built.unsampled == (4 if not built.spans else 0)
        through.append(bool(built.spans))
    assert 80 < sum(through) < 160


def test_a_verdict_on_an_order_that_is_not_sampled_comes_with_all_its_parents() -> None:
    maker = builder(ratio=0.0)
    assert build(publish(), maker=maker).spans == []
    rows = [hop(number=number, state=State.LOST, reason=Reason.QUEUE_EMPTY) for number in (0, 1)]
    root, sent, one, other = spans(*rows, maker=maker)
    assert (root.name, sent.kind) == ("order", "PRODUCER")
    assert {one.parent_id, other.parent_id} == {sent.span_id}
    # and is said not to have been told before, when it is delivered after all
    assert one.links == ()


# ids


def test_the_same_told_again_is_the_same() -> None:
    rows = (publish(), hop(), hop(8, trace_context=CONTEXT, state=State.LOST, reason=Reason.QUEUE_EMPTY))
    assert build(*rows).spans == build(*rows).spans


def test_no_two_things_have_one_id() -> None:
    rows = [
        *(publish(message) for message in (1, 2)),
        *(hop(message, number) for message in (1, 2) for number in (0, 1)),
        hop(1, 2, State.STUCK),
        hop(1, 2, State.LOST, before=State.STUCK),
        hop(1, 2, State.LATE, before=State.LOST),
        *(hop(1, 0, before=State.DELIVERED, attempts=attempts) for attempts in (2, 3)),
        hop(1, 0, vhost="other"),
        hop(1, 0, identity=1),
    ]
    ids = [span.span_id for span in build(*rows).spans]
    assert len(set(ids)) == len(ids)


def test_a_request_names_service_scope_and_schema() -> None:
    message = request([SpanMessage(name="x")], service="rabbitmq", version="1.2")
    (resource,) = message.resource_spans
    (scope,) = resource.scope_spans
    assert [(one.key, one.value.string_value) for one in resource.resource.attributes] == [("service.name", "rabbitmq")]
    assert (scope.scope.name, scope.scope.version) == ("auditor", "1.2")
    assert resource.schema_url == scope.schema_url == SCHEMA_URL


def test_what_is_known_of_an_order_is_handed_back() -> None:
    (order,) = build(publish(trace_context=CONTEXT), hop(trace_context=CONTEXT)).orders
    assert order == OrderTrace(order_key("/", "A-1"), CONTEXT, False, "APPROVED", 7, START, START)
