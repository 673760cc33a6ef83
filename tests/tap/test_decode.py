"""The decoder against captures of real brokers, and against what no broker sends."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.core.deaths import Death, deaths
from auditor.core.events import Delivered, Properties, Published, TraceEvent
from auditor.core.identity import identify
from auditor.tap import decode as decoding
from auditor.tap.decode import Undecodable, decode
from auditor.tap.table import TableError
from auditor.tap.wire import Content
from tests.captures import RECEIVED_AT, Capture, load
from tests.captures.scenarios import DEAD, SCENARIOS, USER, Scenario
from tests.tap.amqp import Table, Typed, encode_table

CAPTURES = load()
VERSIONS = sorted({capture.version for capture in CAPTURES})
CONNECTION = re.compile(r"127\.0\.0\.1:\d+ -> 127\.0\.0\.1:\d+")
each_capture = pytest.mark.parametrize("capture", CAPTURES, ids=str)


def forget() -> None:
    """Have the decoder know nothing."""
    for remembered in (decoding._known, decoding._newest, decoding._around):
        remembered.clear()


@pytest.fixture(autouse=True)
def _nothing_is_known() -> None:
    forget()


def event_of(content: Content) -> TraceEvent:
    event = decode(content)
    assert not isinstance(event, Undecodable), event.cause
    return event


def captured(version: str, scenario: str, kind: str) -> list[Any]:
    return [event_of(c.content) for c in CAPTURES if (c.version, c.scenario, c.kind) == (version, scenario, kind)]


def one_of(version: str, scenario: str, kind: str) -> Content:
    return next(c.content for c in CAPTURES if (c.version, c.scenario, c.kind) == (version, scenario, kind))


def as_traced(scenario: Scenario) -> Properties:
    """The sent properties after what the firehose itself changes: BCC taken out, the timestamp cut to 32 bits."""
    sent = scenario.sent
    headers = {name: value for name, value in sent.headers.items() if name != "BCC"}
    timestamp = sent.timestamp
    if timestamp is not None:
        timestamp = (timestamp + 2**31) % 2**32 - 2**31
    return sent._replace(headers=headers, timestamp=timestamp)


def without_broker_headers(properties: Properties) -> Properties:
    """Without what the broker adds on the way, and the CC that RabbitMQ 3 takes out of dead letters."""
    added = re.compile("x-(death|delivery-count|(first|last)-death-.*)|CC")
    return properties._replace(headers={k: v for k, v in properties.headers.items() if not added.fullmatch(k)})


def same_reply_to(sent: Properties, seen: Properties) -> Properties:
    """The broker replaces the name for direct replies by an address of its own."""
    if sent.reply_to == "amq.rabbitmq.reply-to":
        assert seen.reply_to is not None
        assert seen.reply_to.startswith("amq.rabbitmq.reply-to.")
        return sent._replace(reply_to=seen.reply_to)
    return sent


def test_there_are_captures_of_every_scenario_from_each_broker() -> None:
    assert VERSIONS == ["3.10.8", "4.0.5"]
    found = Counter((capture.version, capture.scenario, capture.kind) for capture in CAPTURES)
    expected = Counter(
        {
            (version, name, kind): count
            for version in VERSIONS
            for name, scenario in SCENARIOS.items()
            for kind, count in (("publish", 1), ("deliver", len(scenario.answers)))
            if count
        }
    )
    assert found == expected


@each_capture
def test_a_capture_decodes_to_what_was_sent(capture: Capture) -> None:
    scenario = SCENARIOS[capture.scenario]
    event = event_of(capture.content)
    assert event.vhost == "captures"
    assert event.user == USER
    assert event.node.endswith("@localhost")
    assert CONNECTION.fullmatch(event.connection)
    assert event.received_at == RECEIVED_AT
    assert event.body == scenario.body
    sent = same_reply_to(as_traced(scenario), event.properties)
    if isinstance(event, Published):
        assert capture.kind == "publish"
        assert event.exchange == scenario.exchange
        assert event.routing_keys == routing_keys(scenario)
        assert sorted(event.routed_queues) == sorted(scenario.queues)
        assert event.properties == sent
        return
    assert capture.kind == "deliver"
    from_dead_letters = scenario.death is not None and capture.number == len(scenario.answers)
    if scenario.delivered_from is None:
        assert event.queue in scenario.queues
    else:
        assert event.queue == scenario.delivered_from[capture.number - 1]
    assert event.redelivered == (capture.number > 1 and scenario.answers[capture.number - 2] == "requeue") or (
        from_dead_letters and not event.redelivered
    )
    assert event.exchange == (DEAD if from_dead_letters else scenario.exchange)
    assert event.routing_keys == (("was.dead",) if from_dead_letters else routing_keys(scenario))
    if from_dead_letters:
        sent = sent._replace(expiration=None)
    assert without_broker_headers(event.properties) == without_broker_headers(sent)


def routing_keys(scenario: Scenario) -> tuple[str, ...]:
    headers = scenario.sent.headers
    return (scenario.routing_key, *headers.get("CC", ()), *headers.get("BCC", ()))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_all_events_of_a_message_have_one_identity(version: str, name: str) -> None:
    events = captured(version, name, "publish") + captured(version, name, "deliver")
    assert len({identify("v", event.properties, event.body) for event in events}) == 1


def test_messages_that_differ_have_identities_that_do() -> None:
    names = {name: s for name, s in SCENARIOS.items() if s.death is None}
    found: dict[int, list[str]] = {}
    for name in names:
        event = captured(VERSIONS[0], name, "publish")[0]
        found.setdefault(identify("v", event.properties, event.body), []).append(name)
    # what these differ in is left out on purpose: exchange and routing key, CC and BCC are no part of the other
    assert sorted(map(sorted, (same for same in found.values() if len(same) > 1))) == [
        ["default-exchange", "fan-out", "longest-key", "no-id", "unroutable"]
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.death])
def test_a_dead_letter_tells_where_and_why_it_died(version: str, name: str) -> None:
    scenario = SCENARIOS[name]
    last = captured(version, name, "deliver")[-1]
    assert [(death.queue, death.reason.value) for death in deaths(last.properties.headers)] == [
        (scenario.queues[0], scenario.death)
    ]
    assert isinstance(deaths(last.properties.headers)[0], Death)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_quorum_queue_counts_its_deliveries(version: str) -> None:
    first, second = captured(version, "redelivered", "deliver")
    assert (first.redelivered, second.redelivered) == (False, True)
    assert second.properties.headers["x-delivery-count"] == 1


# envelopes are remembered


@each_capture
def test_an_event_is_the_same_from_an_envelope_that_is_known(capture: Capture) -> None:
    first = decode(capture.content)
    assert len(decoding._known) == 1
    assert decode(capture.content) == first
    assert type(decode(capture.content)) is type(first)
    assert len(decoding._known) == 1


def test_events_are_the_same_in_any_order_of_envelopes() -> None:
    alone = []
    for capture in CAPTURES:
        decoding._known.clear()
        alone.append(decode(capture.content))
    assert [decode(capture.content) for capture in CAPTURES] == alone
    assert [decode(capture.content) for capture in reversed(CAPTURES)] == alone[::-1]


def test_remembered_envelopes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_MAX_ENVELOPES", 10)
    for number in range(100):
        assert event_of(trace(routing_keys=("A", [("S", f"order.{number}")]))).routing_keys == (f"order.{number}",)
        assert len(decoding._known) <= 10
    decoding._known.clear()
    long = ("A", [("S", "k" * 255)] * 5)
    assert event_of(trace(routing_keys=long)).routing_keys == ("k" * 255,) * 5
    assert not decoding._known


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("size", [0, 3, 40, 2**32 - 1])
def test_a_routing_key_may_look_like_the_header_of_the_properties(size: int, known: bool) -> None:
    forged = b"\x0apropertiesF" + struct.pack(">L", size) + b"\x0amessage_idS\x00\x00\x00\x01x"
    expected = forged.decode("utf-8", "backslashreplace")
    for order in (THREE, FOUR):
        if known:
            event_of(trace(order=order))
        event = event_of(trace(order=order, routing_keys=("A", [("S", forged)])))
        assert event.routing_keys == (expected,)
        assert event.properties.message_id == "m"


# what is misshapen

THREE = ["exchange_name", "routing_keys", "properties", "node", "vhost", "connection", "channel", "user"]
FOUR = sorted(THREE)
SHAPE: dict[str, Typed] = {
    "exchange_name": ("S", "orders"),
    "routing_keys": ("A", [("S", "order.created")]),
    "properties": ("F", [("message_id", ("S", "m"))]),
    "node": ("S", "rabbit@host"),
    "vhost": ("S", "/"),
    "connection": ("S", "1 -> 2"),
    "channel": ("I", 1),
    "user": ("S", "crm"),
    "routed_queues": ("A", [("S", "q")]),
}


def trace(key: bytes = b"publish.orders", order: list[str] | None = None, **changed: Any) -> Content:
    """A trace message with some headers changed; None leaves one out."""
    shape = {**SHAPE, **changed}
    order = [*(order or THREE), "routed_queues", *(set(changed) - set(SHAPE))]
    table: Table = [(name, value) for name in order if (value := shape[name]) is not None]
    return Content(1, False, key, b"\x20\x00" + encode_table(table), b"body", RECEIVED_AT)


def cause_of(content: Content) -> str:
    found = decode(content)
    assert isinstance(found, Undecodable)
    assert found.content is content
    return found.cause


def test_the_shape_that_is_changed_below_is_fine() -> None:
    properties = Properties(message_id="m")
    last = ("rabbit@host", "1 -> 2", "crm", RECEIVED_AT)
    assert decode(trace()) == Published("/", "orders", ("order.created",), ("q",), properties, b"body", *last)
    assert decode(trace(b"deliver.a.b", redelivered=("I", 1))) == Delivered(
        "/", "a.b", "orders", ("order.created",), True, properties, b"body", *last
    )
    assert event_of(trace(b"deliver.caf\xe9")).queue == r"caf\xe9"  # type: ignore[union-attr]


NEEDED = ["vhost", "exchange_name", "routing_keys", "routed_queues", "properties", "node", "connection", "user"]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("wrong", [None, ("I", 1), ("x", b"orders"), ("V", None), ("A", [("I", 1)])])
@pytest.mark.parametrize("name", NEEDED)
def test_a_header_that_is_missing_or_of_another_type_is_named(name: str, wrong: Typed | None, known: bool) -> None:
    if known:
        event_of(trace())
    changed: Any = {name: wrong}
    assert f"'{name}'" in cause_of(trace(**changed))


def test_headers_that_the_broker_adds_to_a_trace_message_are_passed_over() -> None:
    # a quorum queue counts the deliveries of the trace message itself, and RabbitMQ 3.10 sorts its headers then
    added: Any = {"x-delivery-count": ("l", 1)}
    assert event_of(trace(order=FOUR, **added)) == event_of(trace())


def test_a_delivery_needs_no_routed_queues() -> None:
    assert isinstance(decode(trace(b"deliver.q", routed_queues=None)), Delivered)


@pytest.mark.parametrize("key", [b"", b".", b"publish", b"deliver", b"orders.publish", b"publisher.x", b"\xff.q"])
def test_a_routing_key_of_another_kind_is_no_trace_message(key: bytes) -> None:
    if key in (b"publish", b"deliver"):  # never sent, but it says what it is
        assert not isinstance(decode(trace(key)), Undecodable)
    else:
        assert "routing key" in cause_of(trace(key))


@pytest.mark.parametrize("flags", [b"", b"\x00\x00", b"\x30\x00", b"\x20\x01", b"\xa0\x00"])
def test_other_properties_than_headers_are_no_trace_message(flags: bytes) -> None:
    content = trace()
    assert "properties besides headers" in cause_of(content._replace(properties=flags + content.properties[2:]))


@each_capture
def test_a_capture_cut_off_anywhere_says_so(capture: Capture) -> None:
    data = capture.content.properties
    event_of(capture.content)  # its envelope is known
    for length in range(0, len(data), 7):
        assert cause_of(capture.content._replace(properties=data[:length]))


@pytest.mark.parametrize("size", [0, 1, 11, 100, 2**32 - 1])
def test_properties_of_another_size_are_damaged(size: int) -> None:
    content = trace()
    for _ in range(2):
        at = content.properties.index(b"propertiesF") + 11
        changed = content.properties[:at] + struct.pack(">L", size) + content.properties[at + 4 :]
        if size == 0:
            continue
        assert cause_of(content._replace(properties=changed))
        event_of(content)  # and again with its envelope known


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("size", [0, 2, 5, 30])
def test_a_value_may_not_reach_over_the_properties(size: int, known: bool) -> None:
    content = trace()
    if known:
        event_of(content)
    at = content.properties.index(b"message_idS") + 11
    changed = content.properties[:at] + struct.pack(">L", size) + content.properties[at + 4 :]
    assert cause_of(content._replace(properties=changed))


def test_properties_may_not_reach_over_the_headers() -> None:
    """Although bytes follow that would do, and the envelope, with nothing behind the properties, was seen before."""
    last = [name for name in THREE if name != "properties"]
    content = trace(b"deliver.q", order=last, routed_queues=None, properties=None)
    behind = b"\x07user_idS\x00\x00\x00\x01x"
    for size in (0, len(behind)):
        field = b"\x0apropertiesF" + struct.pack(">L", size)
        table = content.properties[6:] + field
        data = b"\x20\x00" + struct.pack(">L", len(table)) + table + behind
        found = decode(content._replace(properties=data))
        assert isinstance(found, Undecodable) == (size > 0)


def test_properties_that_the_broker_is_not_known_to_write_are_passed_over() -> None:
    given: Table = [
        ("cluster_id", ("S", "c")),
        ("priority", ("S", "high")),
        ("message_id", ("I", 1)),
        ("headers", ("S", "none")),
        ("new", ("F", [])),
        ("type", ("S", "Order")),
    ]
    assert event_of(trace(properties=("F", given))).properties == Properties(type="Order")


def test_a_second_properties_is_no_trace_message() -> None:
    content = trace()
    field = b"\x0aproperties" + b"V"
    data = content.properties
    twice = data[:2] + struct.pack(">L", len(data) - 6 + len(field)) + data[6:] + field
    assert "'properties'" in cause_of(content._replace(properties=twice))


SOME_FIELDS = st.lists(
    st.sampled_from(
        [
            ("app_id", ("S", "crm")),
            ("app_id", ("S", "\x0amessage_idS\x00\x00\x00\x02m1")),
            ("type", ("S", "\x0amessage_idS\x00\x00\x00\x7f")),
            ("type", ("S", "\x0amessage_idS")),
            ("message_id", ("S", "other")),
            ("message_id", ("I", 1)),
            ("delivery_mode", ("I", 2)),
            ("headers", ("F", [("message_id", ("S", "m1")), ("order", ("S", "A-1"))])),
        ]
    ),
    max_size=3,
).map(lambda table: encode_table(table)[4:])


def _outcome(read: Callable[[bytes], Properties], data: bytes) -> str:
    """What comes of reading: the properties, or that they are damaged."""
    try:
        return repr(read(data))
    except (TableError, struct.error, IndexError):
        return "damaged"


@given(st.lists(st.tuples(SOME_FIELDS, SOME_FIELDS), min_size=1, max_size=3), st.text(max_size=3), st.integers(0, 300))
def test_properties_are_the_same_when_those_around_their_message_id_are_known(
    around: list[tuple[bytes, bytes]], message_id: str, length: int
) -> None:
    for before, after in around:
        decoding._properties(before + encode_table([("message_id", ("S", "m1"))])[4:] + after)
    for before, _ in around:
        for _, after in around:
            whole = before + encode_table([("message_id", ("S", message_id))])[4:] + after
            for data in (whole, before + after, whole[:length]):
                assert _outcome(decoding._properties, data) == _outcome(decoding._each_property, data)


def test_remembered_properties_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_MAX_AROUND", 10)
    for number in range(25):
        decoding._properties(encode_table([("message_id", ("S", "m1")), ("app_id", ("S", str(number)))])[4:])
        assert 0 < len(decoding._around) <= 10


def _mutated(capture: Capture, edits: list[tuple[float, bytes, int]]) -> Content:
    data = capture.content.properties
    for where, put, away in edits:
        at = int(where * len(data))
        data = data[:at] + put + data[at + away :]
    return capture.content._replace(properties=data)


@given(
    st.sampled_from(CAPTURES),
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 3)), max_size=4),
    st.booleans(),
)
def test_no_mutation_raises_and_none_depends_on_what_is_known(
    capture: Capture, edits: list[tuple[float, bytes, int]], known: bool
) -> None:
    content = _mutated(capture, edits)
    forget()
    fresh = decode(content)
    for other in CAPTURES[:: 1 if known else 5]:
        decode(other.content)
    # by repr, since a mutation can make a NaN, which is not equal to itself
    again = decode(content)
    assert type(again) is type(fresh)
    assert isinstance(fresh, Undecodable) or repr(again) == repr(fresh)
