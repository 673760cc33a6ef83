"""Flows as the settings describe them, and the trace keys that they need."""

from __future__ import annotations

import json
from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.core.events import Properties, Published
from auditor.core.extract import Content, Fields
from auditor.core.flows import Flow
from auditor.flows import binding_keys, flow_table, parse_json
from auditor.settings import FlowSettings, Settings
from auditor.sources import compile_sources


def settings(*flows: dict[str, Any], **sections: Any) -> Settings:
    named = [FlowSettings(**{"name": f"flow {number}", **flow}) for number, flow in enumerate(flows)]
    return Settings(flows=named, **sections)


def flow(**fields: Any) -> Flow:
    return flow_table(settings(fields)).flows[0]


def event(body: Any = None, routing_key: str = "key", **properties: Any) -> Published:
    return Published(
        "/", "e", (routing_key,), (), Properties(**properties), json.dumps(body).encode(), "n", "c", "u", 0
    )


def test_without_flows_there_is_one_that_takes_everything() -> None:
    (everything,) = flow_table(Settings()).flows
    assert (everything.name, everything.sender, everything.receiver, everything.deadline) == ("all", "", "", 60_000_000)
    assert everything.publishes("", "user", "connection")
    assert everything.takes("queue")
    assert everything.receives("user", "connection")
    assert not everything.dead_letters("queue")
    assert everything.extract(event({"orderId": 1})) == Fields(order_id="1")


@pytest.mark.parametrize(
    ("fields", "systems"),
    [
        ({"name": "crm->mes"}, ("crm", "mes")),
        ({"name": "crm -> mes"}, ("crm", "mes")),
        ({"name": "orders"}, ("", "")),
        ({"name": "crm->mes", "sender": "CRM", "receiver": "MES"}, ("CRM", "MES")),
    ],
)
def test_the_name_names_the_systems(fields: dict[str, str], systems: tuple[str, str]) -> None:
    made = flow(**fields)
    assert (made.sender, made.receiver) == systems


@pytest.mark.parametrize(
    ("patterns", "matching", "other"),
    [
        (["crm.*"], "crm.orders", "crm"),
        (["crm.*"], "crm.a.b", "CRM.a"),
        (["a", "b"], "b", "ab"),
        ([""], "", "x"),
        (["*"], "", None),
        (["q[12]?"], "q1x", "q3x"),
        (["a|b"], "a|b", "a"),
        ([], "anything", None),
    ],
)
def test_patterns_are_shell_style_and_case_sensitive(patterns: list[str], matching: str, other: str | None) -> None:
    made = flow(exchanges=patterns, queues=patterns, receiver_users=patterns, receiver_connections=patterns)
    assert made.publishes(matching, "u", "c")
    assert made.takes(matching)
    assert made.receives(matching, matching)
    if other is not None:
        assert not made.publishes(other, "u", "c")
        assert not made.takes(other)
        assert not made.receives(matching, other)
        assert not made.receives(other, matching)


def test_every_list_of_a_side_must_match() -> None:
    made = flow(exchanges=["orders"], sender_users=["crm*"], sender_connections=["10.0.0.5:* -> *"])
    assert made.publishes("orders", "crm-1", "10.0.0.5:41000 -> 10.0.0.1:5672")
    assert not made.publishes("other", "crm-1", "10.0.0.5:41000 -> 10.0.0.1:5672")
    assert not made.publishes("orders", "mes", "10.0.0.5:41000 -> 10.0.0.1:5672")
    assert not made.publishes("orders", "crm-1", "10.0.0.6:41000 -> 10.0.0.1:5672")


def test_dead_letter_queues_are_those_that_are_named() -> None:
    made = flow(dead_letter_queues=["*.dead"])
    assert made.dead_letters("mes.dead")
    assert not made.dead_letters("mes")


def test_what_delays_is_what_is_named_and_every_exchange_may_while_none_is() -> None:
    made = flow(delayed_exchanges=["later.*"], delay_queues=["*.wait"], delay_limit="5m", transactional=True)
    assert [made.delayed_exchange(name) for name in ("later.orders", "orders")] == [True, False]
    assert [made.delay_queue(name) for name in ("mes.wait", "mes")] == [True, False]
    assert (made.delay_limit, made.transactional) == (300_000_000, True)
    plain = flow()
    assert plain.delayed_exchange("orders")
    assert not plain.delay_queue("mes.wait")
    assert not plain.transactional


def test_a_flows_own_sources_take_the_place_of_the_presets() -> None:
    made = flow(
        order_id=["routing_key:^order\\.(\\w+)", "property:correlation_id", "body:items[?kind=='order'].id | [0]"],
        stage=[],
        stages={"x": "CLOSED"},
    )
    body = {
        "orderId": "not looked at",
        "status": "x",
        "items": [{"kind": "price", "id": 1}, {"kind": "order", "id": 2}],
    }
    assert made.extract(event(body, "order.A", correlation_id="C")) == Fields(order_id="A")
    assert made.extract(event(body, correlation_id="C")) == Fields(order_id="C")
    assert made.extract(event({**body, "userId": 5})) == Fields(order_id="2", user_id="5")


def test_a_flows_own_stage_sources_leave_the_type_alone() -> None:
    made = flow(preset="spring-amqp", stage=["header:word"], stages={"Order": "CLOSED"})
    assert made.extract(event(headers={"__TypeId__": "Order"})).stage is None
    assert made.extract(event(headers={"word": "Order"})).stage == "CLOSED"


NAMES = st.sampled_from(["a", "b", "é"])
DOCUMENTS = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)


@given(
    DOCUMENTS, st.sampled_from(["a", "a.b", "a.b.a", "[0]", "[-1].a", "a[1]", "a[0][1].b", '"é".a', "@", "*.a | [0]"])
)
def test_plain_paths_mean_what_jmespath_means(document: Any, expression: str) -> None:
    (source,) = compile_sources([f"body:{expression}"])
    (plain,) = compile_sources([f"body:{expression} | @"])  # a pipe takes the way through JMESPath itself

    class Asked:
        event = None

    asked = Asked()
    asked.document = document  # type: ignore[attr-defined]
    assert source(asked) == plain(asked)  # type: ignore[arg-type]
    expected = jmespath.search(expression, document)
    if isinstance(expected, str) and expected.isprintable() and not expected.isspace():
        assert source(asked) == (expected or None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flows", "keys"),
    [
        ([], ["#"]),
        ([{}], ["#"]),
        ([{"exchanges": ["orders", "prices"]}], ["publish.orders", "publish.prices", "deliver.#"]),
        ([{"exchanges": [""], "queues": ["q"], "dead_letter_queues": ["d"]}], ["publish.", "deliver.d", "deliver.q"]),
        ([{"queues": ["q"], "dead_letter_queues": ["d"]}], ["publish.#", "deliver.d", "deliver.q"]),
        # where dead letters end is not known
        ([{"exchanges": ["e"], "queues": ["q"]}], ["publish.e", "deliver.#"]),
        ([{"exchanges": ["e"]}, {"exchanges": ["f.*"]}], ["#"]),
        ([{"exchanges": ["e"]}, {}], ["#"]),
        ([{"exchanges": ["e"]}, {"exchanges": ["e", "a"]}], ["publish.a", "publish.e", "deliver.#"]),
        # "#" would be a wildcard in the binding
        ([{"exchanges": ["a.#"]}], ["#"]),
        ([{"exchanges": ["a#b"]}], ["publish.a#b", "deliver.#"]),
        # no key may be longer than 255 bytes
        ([{"exchanges": ["e" * 247]}], [f"publish.{'e' * 247}", "deliver.#"]),
        ([{"exchanges": ["é" * 124]}], ["#"]),
    ],
)
def test_the_trace_queue_gets_what_the_flows_need(flows: list[dict[str, Any]], keys: list[str]) -> None:
    assert binding_keys(settings(*flows)) == keys


def test_the_trace_queue_gets_everything_when_told_so() -> None:
    assert binding_keys(settings({"exchanges": ["e"]}, tap={"bind": "all"})) == ["#"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=10,
)


def read(body: bytes) -> tuple[str, str]:
    """Read a body with the fast parser, and with the library's alone."""
    event = Published("/", "e", ("key",), (), Properties(), body, "n", "c", "u", 0)
    return repr(Content(event, parse_json).document), repr(Content(event).document)


@given(st.dictionaries(st.text(), _JSON), st.booleans(), st.sampled_from([b"", b" ", b"\n", b" x", b"}"]))
def test_the_fast_parser_reads_what_the_library_reads(document: Any, ascii_only: bool, end: bytes) -> None:
    fast, plain = read(json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") + end)
    assert fast == plain


@pytest.mark.parametrize(
    "value",
    [
        *(b"-0", b"-0.0", b"01", b"1.", b"1E5", b"1e400", b"18446744073709551616", b"9" * 4300, b"9" * 4301),
        *(b'"\\ud800"', b'"\xed\xa0\x80"', b'"\xff"', b'"\x01"', b'"\\u0000"', b'"\\x"', b"'a'"),
        *(b"NaN", b"-Infinity", b"{} {}", b'{"a": 1, "a": 2}', b"[1,]", b"[" * 300 + b"]" * 300, b"[" * 5000),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_the_fast_parser_reads_what_is_odd_as_the_library_does(value: bytes) -> None:
    fast, plain = read(b'{"id": ' + value + b"}")
    assert fast == plain
    fast, plain = read(b"\xef\xbb\xbf[" + value + b"]")
    assert fast == plain
