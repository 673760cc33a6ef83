"""Both lanes are given the same bytes, and the ledger is the same; and what only the fast lane can read."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp import decode as pamqp

from auditor.audit import Connection, Ids, Pace, Step, VhostAudit
from auditor.core.events import Delivered, Published, TraceEvent
from auditor.errors import BrokerError
from auditor.flows import flow_table
from auditor.ledger.writer import Ledger
from auditor.settings import Settings
from auditor.tap import plain
from auditor.tap.canary import Canary
from auditor.tap.consumer import Tap
from auditor.tap.decode import Undecodable, decode
from auditor.tap.digest import digest
from auditor.tap.plain import PlainTap
from auditor.tap.table import MAX_DEPTH, TableError, decode_table
from auditor.tap.wire import Content
from tests.captures import RECEIVED_AT, load
from tests.captures.scenarios import EVERY_TYPE, nested
from tests.tap import amqp
from tests.tap.amqp import Typed
from tests.tap.fake_broker import FakeBroker

CAPTURES = load()
VERSIONS = sorted({capture.version for capture in CAPTURES})
LANES = (Tap, PlainTap)
BOUND = 30.0  # seconds for anything
QUEUE = "auditor.trace"

UNREADABLE = {"largest-timestamp"}  # pamqp raises
TWICE = {"duplicate-names", "expired"}  # with two equal names, as RabbitMQ 3 hands them on; pamqp takes the last

# not traced, but whoever may publish to a queue may publish such to ours
STRANGERS = [
    Content(0, False, QUEUE.encode(), b"\x00\x00", b"", 0),
    Content(0, False, QUEUE.encode(), b"\x20\x00" + amqp.encode_table([("a", ("S", "b"))]), b"hello", 0),
    Content(0, True, b"publish.x", b"\xa0\x00\x04text" + amqp.encode_table(EVERY_TYPE), b"hello", 0),
    Content(0, False, b"publish.x", b"\x01\x00\x05never", b"hello", 0),  # an expiration that is no number
]


def captured(version: str, *, only: Collection[str] = (), without: Collection[str] = ()) -> list[Content]:
    """The captures of a version, of some scenarios or without some."""
    found = [capture for capture in CAPTURES if capture.version == version and capture.scenario not in without]
    return [capture.content for capture in found if not only or capture.scenario in only]


def numbered(contents: Sequence[Content]) -> list[Content]:
    """Contents with the delivery tags that one channel gives them."""
    return [content._replace(delivery_tag=tag) for tag, content in enumerate(contents, 1)]


def stream(contents: Sequence[Content], channel: int, consumer: str, seed: int) -> list[bytes]:
    """The frames of these deliveries, bodies in one to three of them, in pieces of any size."""
    rng = random.Random(seed)
    sent = b""
    for content in contents:
        tag, redelivered, key, *_ = content
        sent += amqp.method(commands.Basic.Deliver(consumer, tag, redelivered, "traces", key.decode()), channel)
        sent += amqp.content_header(content.properties, len(content.body), channel)
        cuts = sorted(rng.randint(0, len(content.body)) for _ in range(rng.randint(0, 2)))
        parts = [content.body[begin:end] for begin, end in pairwise([0, *cuts, len(content.body)])]
        sent += amqp.bodies([part for part in parts if part], channel)
    cuts = sorted(rng.randint(0, len(sent)) for _ in range(50))
    return [sent[begin:end] for begin, end in pairwise([0, *cuts, len(sent)])]


async def read(lane: type[Tap], contents: Sequence[Content], seed: int = 1) -> list[Content]:
    """What a lane makes of these deliveries; when they came is made the same."""
    broker = FakeBroker(lambda channel, consumer: stream(contents, channel, consumer, seed))
    got: list[Content] = []
    async with broker.serve() as endpoint:
        tap = lane(endpoint, QUEUE, prefetch=1000, max_buffered=1 << 20)
        try:
            await tap.open()
            async with asyncio.timeout(BOUND):
                while len(got) < len(contents):
                    got += await tap.batch(7, 0.001, 1.0)
            await tap.acknowledge(got[-1])
        finally:
            await tap.close()
    assert [(ack.delivery_tag, ack.multiple) for ack in broker.acknowledged] == [(got[-1].delivery_tag, True)]
    return [content._replace(received_at=RECEIVED_AT + number) for number, content in enumerate(got)]


def meaning(content: Content) -> Any:
    """The event; or why it cannot be decoded, without its header, which is kept as the lane has it."""
    event = decode(content)
    return (event.cause, content.body) if isinstance(event, Undecodable) else event


def event_of(content: Content) -> TraceEvent:
    event = decode(content)
    assert not isinstance(event, Undecodable), event.cause
    return event


def in_ledger(path: Path, sessions: Sequence[Sequence[Content]]) -> dict[str, list[Any]]:
    """All rows that an audit leaves in a fresh ledger, of what these sessions with the broker brought."""
    ledger = Ledger.open(path)
    audit = VhostAudit(
        "captures",
        ledger=ledger,
        ids=Ids(ledger),
        flows=flow_table(Settings()),
        canary=Canary(exchange="auditor.canary", auditor=QUEUE, user="auditor"),
        pace=Pace(canary_interval=1_000_000, canary_timeout=5_000_000, orphan_wait=5_000_000, reinspect=30_000_000),
        max_open_hops=50_000,
        now=RECEIVED_AT,
    )
    nothing: dict[str, Any] = {name: [] for name in Step._fields if name not in Step._field_defaults}
    for contents in sessions:
        for at in range(0, len(contents), 10):
            step = {"contents": contents[at : at + 10], "connection": Connection(True), "now": RECEIVED_AT + at}
            audit.step(Step(**nothing | step))
        audit.step(Step(**nothing | {"connection": Connection(False), "now": RECEIVED_AT + 1000}))
    ledger.close()
    with closing(sqlite3.connect(path)) as file:
        tables = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: sorted(file.execute(f'SELECT * FROM "{name}"'), key=repr) for name in tables}
        # the bytes as the lane has them: read by the one, written by the other
        rows["counts"] = file.execute("SELECT published, delivered, undecodable FROM status").fetchall()
        rows["undecodable"] = file.execute("SELECT id, routing_key, cause, body_size FROM undecodable").fetchall()
    return {name: found for name, found in rows.items() if name != "seen" and "migrations" not in name}


# the same


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_both_lanes_give_the_same_events_and_the_same_ledger(version: str, seed: int, tmp_path: Path) -> None:
    once = captured(version, without=UNREADABLE | (TWICE if version.startswith("3.") else set())) + STRANGERS
    again = [content._replace(redelivered=True) for content in once[-10:]]
    sessions = [numbered(once), numbered(again)]
    fast, plain = [[await read(lane, session, seed) for session in sessions] for lane in LANES]
    for sent, one, other in zip(sessions, fast, plain, strict=True):
        assert (
            [content[:3] for content in sent] == [content[:3] for content in one] == [content[:3] for content in other]
        )
        assert list(map(meaning, one)) == list(map(meaning, other))
    of_fast, of_plain = in_ledger(tmp_path / "fast.db", fast), in_ledger(tmp_path / "plain.db", plain)
    assert of_fast == of_plain
    kinds = [type(meaning(content)) for content in fast[0]]
    assert kinds.count(tuple) == len(STRANGERS) == len(of_fast["undecodable"])
    # what came again was known
    assert of_fast["counts"] == [(kinds.count(Published), kinds.count(Delivered), len(STRANGERS))]


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_event_of_usual_types_has_the_same_digest_in_both_lanes(version: str) -> None:
    """So that what comes again after a change of the setting is known for what it is."""
    sent = numbered(captured(version, only={"plain", "typical", "all-properties", "nested", "reply-to"}))
    fast, plain = [await read(lane, sent) for lane in LANES]
    assert [digest(content) for content in fast] == [digest(content) for content in plain]


def _integers(kind: str, bits: int, *, signed: bool) -> st.SearchStrategy[Typed]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.integers(low, high).map(lambda value: (kind, value))


SCALARS = st.one_of(
    *(_integers(kind, bits, signed=True) for kind, bits in (("b", 8), ("s", 16), ("I", 32), ("l", 64), ("L", 64))),
    *(_integers(kind, bits, signed=False) for kind, bits in (("B", 8), ("u", 16), ("i", 32), ("T", 32))),
    st.integers(2**32, 253_402_300_799_999).filter(lambda value: value % 1000).map(lambda value: ("T", value)),
    st.floats(width=32, allow_nan=False).map(lambda value: ("f", value)),
    st.floats(allow_nan=False).map(lambda value: ("d", value)),
    st.tuples(st.integers(0, 255), st.integers(-(2**31), 2**31 - 1)).map(lambda value: ("D", value)),
    st.text(st.characters(codec="utf-8"), max_size=20).map(lambda value: ("S", value)),
    st.binary(max_size=20).map(lambda value: ("S", value)),
    st.binary(max_size=20).map(lambda value: ("x", value)),
    st.booleans().map(lambda value: ("t", value)),
    st.just(("V", None)),
)
NAMES = st.text(st.characters(codec="utf-8"), max_size=20)


def _in_containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    fields = st.dictionaries(NAMES, inner, max_size=4).map(lambda table: ("F", list(table.items())))
    return st.lists(inner, max_size=4).map(lambda values: ("A", values)) | fields


@given(st.dictionaries(NAMES, st.recursive(SCALARS, _in_containers, max_leaves=12), max_size=6))
def test_what_pamqp_has_decoded_is_written_so_that_it_means_the_same(table: dict[str, Typed]) -> None:
    data = amqp.encode_table(list(table.items()))
    assert decode_table(plain.encode_table(pamqp.field_table(data)[1])) == decode_table(data)


def test_a_table_too_deep_for_us_stays_too_deep() -> None:
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 9):
        data = amqp.encode_table([("deep", nested(depth))])
        written = plain.encode_table(pamqp.field_table(data)[1])
        if depth == MAX_DEPTH:
            assert decode_table(written) == decode_table(data)
            continue
        for table in (written, data):
            with pytest.raises(TableError, match="nested deeper"):
                decode_table(table)


# the limits of the library


@pytest.mark.parametrize("version", VERSIONS)
async def test_one_event_that_the_library_cannot_read_ends_the_plain_lane_and_not_the_fast_one(version: str) -> None:
    sent = numbered(captured(version, only={"plain", "largest-timestamp"}))
    assert len(await read(Tap, sent)) == len(sent)
    with pytest.raises(BrokerError, match=r'(?s)cannot read an event.*tap\.consumer = "fast"'):
        await read(PlainTap, sent)


async def test_of_two_headers_of_one_name_the_plain_lane_gives_the_last() -> None:
    sent = numbered(captured("3.10.8", only={"duplicate-names"}))
    fast, plain = [[event_of(content) for content in await read(lane, sent)] for lane in LANES]
    assert {event.properties.headers["twice"] for event in fast} == {"first"}
    assert {event.properties.headers["twice"] for event in plain} == {"second"}


def test_a_timestamp_in_milliseconds_without_a_fraction_becomes_one_in_seconds() -> None:
    data = amqp.encode_table([("at", ("T", 1_800_000_000_000))])
    assert decode_table(plain.encode_table(pamqp.field_table(data)[1])) == {"at": 1_800_000_000}


async def test_an_event_that_cannot_be_written_ends_the_lane_and_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "to_content", lambda *_: 1 // 0)
    with pytest.raises(BrokerError, match="division"):
        await read(PlainTap, numbered(captured(VERSIONS[0], only={"plain"})))
