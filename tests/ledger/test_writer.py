"""What a commit writes, and what the matcher gets back."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from auditor.core.changes import Changes
from auditor.core.completeness import Span
from auditor.core.hops import OPEN, Reason, State
from auditor.errors import LedgerError
from auditor.ledger import lookup
from auditor.ledger.layout import BLOCK
from auditor.ledger.queries import Reader
from auditor.ledger.writer import MAX_HEADER, Compared, GapRow, Ledger, Undecodable
from tests.ledger.rows import delivered, delivery, hop, message, orphan
from tests.ledger.synthetic import START, status, traffic


def rows(ledger: Ledger, sql: str, *values: object) -> list[tuple[Any, ...]]:
    return ledger.db.conn.execute(sql, values).fetchall()


def test_a_message_its_hop_and_its_delivery_come_back_in_words(ledger: Ledger) -> None:
    ledger.commit(Changes(messages=[message(1)], hops=[delivered(1)], deliveries=[delivery(1)]), status=status())
    with Reader.open(ledger.path) as reader:
        (row,) = reader.message("message-1")
    expected = {
        "exchange": "crm.orders", "routing_key": "order.changed", "queue": "mes.orders", "flow": "crm->mes",
        "state": "delivered", "reason": None, "stage": "SUBMITTED", "sender": "crm", "vhost": "/",
        "wait_seconds": 0.005, "publisher_user": "crm-user", "publisher_node": "rabbit@a", "consumer_user": "mes-user",
        "published": "2025-10-09T08:53:21.000000Z", "time_source": "arrival", "attempts": 1,
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    assert [(d["attempt"], d["consumer_user"], d["received_at"]) for d in row["deliveries"]] == [
        (1, "mes-user", START + 1_005_000)
    ]


def test_a_hop_written_again_is_the_same_hop(ledger: Ledger) -> None:
    ledger.commit(Changes(messages=[message(1)], hops=[hop(1)]), status=status())
    ledger.commit(Changes(hops=[hop(1, state=State.STUCK, reason=Reason.WAITING, judged_at=START)]), status=status())
    late = hop(1, state=State.LATE, wait=70_000_000, attempts=1, judged_at=START)
    ledger.commit(Changes(hops=[late], deliveries=[delivery(1, wait=70_000_000, redelivered=True)]), status=status())
    with Reader.open(ledger.path) as reader:
        (row,) = reader.hops()
        assert reader.lost() == []
    assert (row["state"], row["reason"], row["wait_seconds"], row["attempts"]) == ("late", None, 70.0, 1)
    # a change without a delivery keeps the first delivery
    died = late._replace(state=State.DEAD_LETTERED, reason=Reason.REJECTED)
    ledger.commit(Changes(hops=[died]), status=status())
    with Reader.open(ledger.path) as reader:
        (row,) = reader.message("message-1")
    assert (row["state"], row["consumer_user"]) == ("dead_lettered", "mes-user")
    assert [d["redelivered"] for d in row["deliveries"]] == [1]


def test_every_delivery_is_kept_once(ledger: Ledger) -> None:
    ledger.commit(Changes(messages=[message(1)], hops=[delivered(1)], deliveries=[delivery(1)]), status=status())
    again = [delivery(1, attempt=2, wait=9000, redelivered=True), delivery(1, attempt=3, wait=9900, redelivered=True)]
    ledger.commit(Changes(hops=[delivered(1, attempts=3)], deliveries=again), status=status())
    found = rows(ledger, "SELECT attempt, wait_seconds, redelivered FROM deliveries ORDER BY attempt")
    assert found == [(1, 0.005, 0), (2, 0.009, 1), (3, 0.0099, 1)]


def test_a_first_delivery_that_is_not_the_hops_own_is_kept_too(ledger: Ledger) -> None:
    """A consumer that is not the flow's receiver took it: the hop still waits."""
    first = Changes(messages=[message(1)], hops=[hop(1, attempts=1)], deliveries=[delivery(1, user="stranger")])
    ledger.commit(first, status=status())
    second = Changes(hops=[delivered(1, attempts=2, wait=8000)], deliveries=[delivery(1, attempt=2, wait=8000)])
    ledger.commit(second, status=status())
    found = rows(ledger, "SELECT attempt, consumer_user, wait_seconds FROM deliveries ORDER BY attempt")
    assert found == [(1, "stranger", 0.005), (2, "mes-user", 0.008)]


def test_a_delivery_whose_hop_is_not_in_the_batch_is_kept(ledger: Ledger) -> None:
    ledger.commit(Changes(messages=[message(1)], hops=[delivered(1)]), status=status())
    ledger.commit(Changes(deliveries=[delivery(1)]), status=status())
    assert rows(ledger, "SELECT attempt FROM deliveries") == [(1,)]


def test_nothing_of_a_batch_is_left_when_a_row_is_refused(ledger: Ledger) -> None:
    ledger.commit(Changes(messages=[message(1)], hops=[delivered(1)]), status=status(published=1))
    broken = Changes(messages=[message(2, exchange="new"), message(1)], hops=[hop(2)])
    with pytest.raises(LedgerError, match="UNIQUE constraint failed") as caught:
        ledger.commit(broken, status=status(published=3), gaps=[GapRow(1, "/", "blind", 1, 2)])
    assert isinstance(caught.value.__cause__, sqlite3.IntegrityError)
    assert rows(ledger, "SELECT id FROM messages") == [(1,)]
    assert rows(ledger, "SELECT count(*) FROM names WHERE name = 'new'") == [(0,)]
    assert ledger.gaps("/", 0) == []
    now = ledger.status("/")
    assert now is not None
    assert now.published == 1
    # and the writer goes on, with nothing in its memory of what was undone
    ledger.commit(Changes(messages=[message(2, exchange="new")], hops=[hop(2)]), status=status(published=2))
    assert [row.exchange for row in ledger.recall("/", 1002, "mes.orders")] == ["new"]
    assert ledger.next_message_id == 3


def test_an_error_of_ours_in_the_middle_leaves_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="in the middle"):
        patch.setattr(lookup.Lookup, "add", fail)
        ledger.commit(Changes(messages=[message(1)], hops=[hop(1)]), status=status())
    assert rows(ledger, "SELECT count(*) FROM messages") == [(0,)]
    ledger.commit(Changes(messages=[message(1)], hops=[hop(1)]), status=status())
    assert rows(ledger, "SELECT count(*) FROM hops") == [(1,)]


def test_a_full_disk_is_a_letter_and_the_writer_goes_on(ledger: Ledger) -> None:
    conn = ledger.db.conn
    pages = conn.execute("PRAGMA page_count").fetchone()[0]
    conn.execute(f"PRAGMA max_page_count = {pages + 2}")
    batches = list(traffic(1000, batch=500))
    with pytest.raises(LedgerError, match="Free some space"):
        ledger.commit(batches[0], status=status())
    conn.execute("PRAGMA max_page_count = 1000000")
    for batch in batches:
        ledger.commit(batch, status=status())
    assert rows(ledger, "SELECT count(*) FROM messages") == [(1000,)]


def test_counters_go_on_after_a_restart(path: Path) -> None:
    ledger = Ledger.open(path)
    assert (ledger.next_message_id, ledger.next_orphan_id, ledger.next_gap_id) == (1, 1, 1)
    changes = Changes(messages=[message(7)], hops=[hop(7)], orphans=[orphan(4)])
    ledger.commit(changes, status=status(), gaps=[GapRow(2, "/", "blind", None, START)])
    ledger.close()
    ledger = Ledger.open(path)
    assert (ledger.next_message_id, ledger.next_orphan_id, ledger.next_gap_id) == (8, 5, 3)
    ledger.close()


def test_open_hops_come_in_order_and_only_those_of_the_vhost(ledger: Ledger) -> None:
    changes = Changes(
        messages=[message(1), message(2), message(3, vhost="other"), message(4, priority=5)],
        hops=[
            hop(4, 1, queue="b"), hop(4, 0, queue="a", state=State.STUCK, reason=Reason.NO_CONSUMER), hop(3),
            hop(2), delivered(1), hop(2, 1, queue="c", state=State.LOST, reason=Reason.OVERTAKEN),
        ],
    )  # fmt: skip
    ledger.commit(changes, status=status())
    found = list(ledger.open_hops("/", 100))
    assert [(row.message, row.number) for row in found] == [(2, 0), (4, 0), (4, 1)]
    assert {row.state for row in found} == OPEN
    stuck = found[1]
    assert stuck.reason is Reason.NO_CONSUMER
    assert (stuck.queue, stuck.priority, stuck.identity, stuck.hops, stuck.vhost) == ("a", 5, 1004, 2, "/")
    assert [row.message for row in ledger.open_hops("other", 100)] == [3]


def test_the_open_hops_that_a_start_leaves_behind_are_counted_and_read_page_by_page(ledger: Ledger) -> None:
    messages = [message(n, vhost="other" if n == 3 else "/") for n in range(1, 7)]
    hops = [hop(1), hop(2, queue="b"), hop(3), delivered(4), hop(5), hop(5, 1, queue="b"), hop(6)]
    ledger.commit(Changes(messages=messages, hops=hops), status=status())
    assert [(row.message, row.number) for row in ledger.open_hops("/", 2)] == [(5, 1), (6, 0)]
    assert sorted(ledger.open_before("/", (5, 1))) == [("b", 1, 2), ("mes.orders", 2, 1)]

    pages = []
    place: tuple[int, int] | None = (0, 0)
    while place is not None:
        found, place = ledger.open_page("/", place, 3)
        pages.append([(row.message, row.number) for row in found])
    assert pages == [[(1, 0), (2, 0)], [(5, 0), (5, 1), (6, 0)], []], "those of other vhosts count, and are left out"


def test_the_oldest_open_hop_is_found_among_many_equal_ones(
    path: Path, merged: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat that nobody takes, and then somebody does."""
    monkeypatch.setattr("auditor.ledger.lookup.MAX_RECALLED", 4)
    monkeypatch.setattr("auditor.ledger.lookup._MAX_LOOKED_AT", 8)
    ledger = Ledger.open(path)
    count = BLOCK * (merged + 1) + 100
    opened = {7, 8, BLOCK + 1, count - 50}
    for first in range(1, count + 1, 4096):
        numbers = range(first, min(first + 4096, count + 1))
        hops = [hop(n) if n in opened else delivered(n) for n in numbers]
        ledger.commit(Changes(messages=[message(n, identity=42) for n in numbers], hops=hops), status=status())
    assert [row.message for row in ledger.recall_open("/", 42, "mes.orders", 1)] == [7, 8]
    assert [row.message for row in ledger.recall_open("/", 42, "mes.orders", 8)] == [8]
    assert [row.message for row in ledger.recall_open("/", 42, "mes.orders", count - 60)] == [count - 50]
    assert ledger.recall_open("/", 42, "elsewhere", count - 60) == []
    newest = list(range(count - 3, count + 1))
    assert [row.message for row in ledger.recall("/", 42, "mes.orders")] == newest
    ledger.close()


def test_recall_goes_by_identity_whatever_the_message_id(ledger: Ledger) -> None:
    twins = [message(1, identity=-5, message_id=None), message(2, identity=-5, message_id="from a header")]
    others = [message(3, identity=-6), message(4, identity=-5, vhost="other")]
    hops = [delivered(1), hop(2), hop(2, 1, queue="elsewhere"), hop(3), hop(4)]
    ledger.commit(Changes(messages=twins + others, hops=hops), status=status())
    assert [(row.message, row.state) for row in ledger.recall("/", -5, "mes.orders")] == [
        (1, State.DELIVERED),
        (2, State.IN_FLIGHT),
    ]
    assert [row.message for row in ledger.recall("/", -5, "elsewhere")] == [2]
    assert ledger.recall("/", -5, "nowhere") == []
    assert ledger.recall("/", -7, "mes.orders") == []


def test_recall_finds_what_lies_in_blocks_and_what_does_not(path: Path, merged: int) -> None:
    """With merged blocks, plain ones and the newest messages; before and after a restart."""
    ledger = Ledger.open(path)
    count = BLOCK * (merged + 1) + 100
    same = {5: 42, BLOCK + 5: 42, BLOCK * merged + 7: 42, count: 42, count - 1: 42 + (1 << 40)}
    number = 1
    while number <= count:
        numbers = range(number, min(number + 4096, count + 1))
        batch = Changes(
            messages=[message(n, identity=same.get(n, n << 20), order_id=None) for n in numbers],
            hops=[delivered(n) for n in numbers],
        )
        ledger.commit(batch, status=status())
        number = numbers.stop
    blocks = {block for (block,) in rows(ledger, "SELECT DISTINCT block FROM identities")}
    assert blocks == {-1, merged}
    for _ in range(2):
        assert [row.message for row in ledger.recall("/", 42, "mes.orders")] == [
            5,
            BLOCK + 5,
            BLOCK * merged + 7,
            count,
        ]
        assert [row.message for row in ledger.recall("/", 9 << 20, "mes.orders")] == [9]
        assert ledger.next_message_id == count + 1
        with Reader.open(path) as reader:
            assert [row["message"] for row in reader.message("message-5")] == [5]
            assert [row["message"] for row in reader.message(f"message-{count}")] == [count]
        ledger.close()
        ledger = Ledger.open(path)
    ledger.close()


def test_a_batch_that_comes_after_its_block_was_done_is_found(ledger: Ledger) -> None:
    """Two vhosts share the numbers; the second commits first."""
    ledger.commit(Changes(messages=[message(BLOCK + 1, vhost="b")], hops=[hop(BLOCK + 1)]), status=status("b"))
    ledger.commit(Changes(messages=[message(3), message(BLOCK)], hops=[hop(3), hop(BLOCK)]), status=status())
    assert [row.message for row in ledger.recall("/", 1003, "mes.orders")] == [3]
    assert [row.message for row in ledger.recall("/", 1000 + BLOCK, "mes.orders")] == [BLOCK]
    assert [row.message for row in ledger.recall("b", 1001 + BLOCK, "mes.orders")] == [BLOCK + 1]
    assert ledger.next_message_id == BLOCK + 2
    with Reader.open(ledger.path) as reader:
        assert len(reader.message("message-3")) == 1
        assert len(reader.order_hops("ORD-1")) == 3


def test_orphans_are_kept_until_they_are_adopted(ledger: Ledger) -> None:
    old, new = orphan(1), orphan(2, received_at=START + 10, flow=None, stage=None, order_id=None)
    ledger.commit(Changes(orphans=[old, new]), status=status())
    assert ledger.recent_orphans("/", START) == [old, new]
    assert ledger.recent_orphans("/", START + 1) == [new]
    assert ledger.recent_orphans("other", START) == []
    with Reader.open(ledger.path) as reader:
        assert [row["id"] for row in reader.orphans()] == [2, 1]
        assert [row["queue"] for row in reader.orphans(message_id="orphan-1", order="ORD-9")] == ["mes.orders"]
        assert [row["event"] for row in reader.order("ORD-9")] == ["delivered without known publish"]
    ledger.commit(Changes(adopted=[1]), status=status())
    assert ledger.recent_orphans("/", START) == [new]


def test_a_gap_that_turned_out_to_be_none_is_taken_out(ledger: Ledger) -> None:
    ledger.commit(Changes(), status=status(), gaps=[GapRow(1, "/", "blind", START, None)])
    ledger.commit(Changes(), status=status(), gaps=[GapRow(1, "/", "blind", START + 3, START + 3)])
    assert ledger.gaps("/", 0) == []


def test_status_and_gaps_come_back_as_they_were_given(ledger: Ledger) -> None:
    first = status(connected=False, problem="firehose off", watermark=None, queue_depth=None)
    ledger.commit(
        Changes(), status=first, gaps=[GapRow(1, "/", "blind", None, START), GapRow(2, "/", "overflow", START, None)]
    )
    assert ledger.status("/") == first
    assert ledger.status("other") is None
    ledger.commit(Changes(), status=status(), gaps=[GapRow(2, "/", "overflow", START, START + 5)])
    assert ledger.gaps("/", 0) == [GapRow(1, "/", "blind", None, START), GapRow(2, "/", "overflow", START, START + 5)]
    assert ledger.gaps("/", START + 1) == [GapRow(2, "/", "overflow", START, START + 5)]
    with Reader.open(ledger.path) as reader:
        assert reader.status()[0]["connected"] == 1
        assert [row["seconds"] for row in reader.gaps()] == [5e-06, None]
        assert reader.coverage()[0]["since_at"] == START


def test_an_undecodable_event_is_kept_with_a_bounded_header(ledger: Ledger) -> None:
    event = Undecodable(
        "/", "deliver.q\udcff".encode("utf-8", "replace").decode(), "bad table", b"x" * 100_000, 3, b"d", START
    )
    ledger.commit(Changes(), status=status(), undecodable=[event])
    found = rows(ledger, "SELECT vhost, cause, length(header), body_size, body_digest, received_at FROM undecodable")
    assert found == [("/", "bad table", MAX_HEADER, 3, b"d", START)]


def test_routing_keys_that_are_used_once_are_no_names(ledger: Ledger) -> None:
    own = message(1, routing_key="order.ORD-1.changed")
    ledger.commit(Changes(messages=[own, message(2)], hops=[hop(1), hop(2)]), status=status())
    assert rows(ledger, "SELECT count(*) FROM names WHERE name LIKE 'order.%'") == [(1,)]
    assert rows(ledger, "SELECT routing_key FROM audit ORDER BY message") == [
        ("order.ORD-1.changed",),
        ("order.changed",),
    ]


def test_how_the_counters_compare_comes_back_and_is_told_with_the_status(ledger: Ledger) -> None:
    assert ledger.span("/") is None
    ledger.commit(Changes(), status=status(), compared=Compared(None, "no management"))
    assert ledger.span("/") is None
    with Reader.open(ledger.path) as reader:
        assert [(row["counted"], row["completeness_note"]) for row in reader.status()] == [(None, "no management")]
    span = Span(START, START + 9, 100, 95, 97, 3, 1100, 40, "rabbit@h", -7, -5, START + 4)
    gap = GapRow(1, "/", "incomplete", START, START + 9, 3)
    ledger.commit(Changes(), status=status(), gaps=[gap], compared=Compared(span, None))
    ledger.commit(Changes(), status=status())  # one that has nothing new to tell changes nothing
    assert ledger.span("/") == span
    assert ledger.gaps("/", START) == [gap]
    with Reader.open(ledger.path) as reader:
        (row,) = reader.status()
        told = ("counted_since_at", "counted_until_at", "counted", "seen_least", "seen_most", "missing")
        assert [row[name] for name in told] == [START, START + 9, 100, 95, 97, 3]
        assert [row["missing"] for row in reader.gaps()] == [row["missing"] for row in reader.coverage()] == [3]
