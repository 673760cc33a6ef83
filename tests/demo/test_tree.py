"""A trace in the terminal."""

from __future__ import annotations

from auditor.demo.receiver import Span
from auditor.demo.tree import traces_of, tree


def span(id: str, parent: str, name: str, start: int, end: int, **others: object) -> Span:
    """A span with times in milliseconds."""
    values: dict[str, object] = {
        "service": "shop",
        "kind": "INTERNAL",
        "trace_id": "t1",
        "attributes": {},
        "error": "",
        "links": (),
        "events": (),
    }
    values |= {"name": name, "span_id": id, "parent_id": parent, "start": start * 10**6, "end": end * 10**6}
    return Span(**(values | others))  # type: ignore[arg-type]


SPANS = [
    span("d", "b", "deliver queue", 20, 4020, service="rabbitmq", error="lost: queue_empty"),
    span("b", "a", "send queue", 10, 12),
    span("a", "", "take order", 0, 1500, attributes={"auditor.order.id": "A-1"}),
    span("c", "a", "send other", 1400, 1401),
    span("e", "elsewhere", "process queue", 30, 31, service="crm", attributes={"auditor.verdict": "late"}),
    span("z", "", "another", 0, 1, trace_id="t2"),
]


def test_spans_stand_below_their_parents_in_the_order_of_their_begin() -> None:
    assert tree(SPANS, "t1") == [
        "    0 ms   1.50 s  shop      take order",
        "   10 ms     2 ms  shop      ├─ send queue",
        "   20 ms   4.00 s  rabbitmq  │  └─ deliver queue  ** lost: queue_empty **",
        "   1.40 s     1 ms  shop      └─ send other".removeprefix(" "),
        "   30 ms     1 ms  crm       process queue  (late)",
    ]


def test_the_traces_of_an_order_are_those_that_tell_of_it() -> None:
    assert traces_of(SPANS, "A-1") == ["t1"]
    assert traces_of(SPANS, "A-2") == []
