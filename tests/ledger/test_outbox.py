"""The outbox in a real file: what is written with a batch, what is read, and what goes when."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from auditor.core.alerts import Exports
from auditor.core.changes import Changes, HopRow, MessageRow
from auditor.core.hops import Reason, State
from auditor.core.outgoing import PUBLISH, OrderTrace, Outgoing, Told, message_trace_id, order_key, order_trace_id
from auditor.ledger import outbox as module
from auditor.ledger.outbox import Batch, OutboxReader
from auditor.ledger.queries import Reader
from auditor.ledger.retention import prune
from auditor.ledger.writer import Ledger
from tests.ledger.rows import delivered, delivery, hop, message
from tests.ledger.synthetic import START, status

CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Told_ = tuple[int, int, State, int, Reason | None, State | None]


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(path, outbox_rows=1000)
    yield opened
    opened.close()


@pytest.fixture
def reader(ledger: Ledger) -> Iterator[OutboxReader]:
    opened = OutboxReader(ledger.path)
    yield opened
    opened.close()


def commit(ledger: Ledger, *rows: MessageRow | HopRow, again: int = 0) -> None:
    """Write a batch; hops that were delivered get as many deliveries as they have attempts, from the `again`th on."""
    changes = Changes(
        messages=[row for row in rows if isinstance(row, MessageRow)],
        hops=[row for row in rows if isinstance(row, HopRow)],
    )
    for row in changes.hops:
        for attempt in range(again or 1, row.attempts + 1):
            wait = (row.wait or 0) + (attempt - 1) * 1000
            changes.deliveries.append(delivery(row.message, row.number, attempt, wait=wait))
    ledger.commit(changes, status=status())


def done(ledger: Ledger, batch: Batch, told: Told | None = None, *orders: OrderTrace) -> None:
    assert ledger.outbox is not None
    with ledger.transaction("test"):
        ledger.outbox.done([row.key for row in batch.rows] + batch.vanished, orders, told or Told(), START)


def waiting(reader: OutboxReader) -> list[Told_]:
    return [_short(row) for row in reader.read(10_000).rows]


def _short(row: Outgoing) -> Told_:
    return (row.message, row.hop, row.state, row.attempts, row.reason, row.before)


# what is written


def test_a_publish_and_its_delivery_wait_in_their_order(ledger: Ledger, reader: OutboxReader) -> None:
    commit(ledger, message(2), hop(2), message(1), delivered(1))
    assert waiting(reader) == [
        (1, PUBLISH, State.IN_FLIGHT, 0, None, None),
        (1, 0, State.DELIVERED, 1, None, None),
        (2, PUBLISH, State.IN_FLIGHT, 0, None, None),
    ]


def test_a_publish_that_its_publisher_tells_of_is_left_to_it(ledger: Ledger, reader: OutboxReader) -> None:
    commit(
        ledger,
        message(1, trace_context=CONTEXT, order_id=None),
        message(2, trace_context=CONTEXT, order_id="A-1"),  # its order may have a stage
        message(3, trace_context="garbage", order_id=None),
    )
    assert [row[0] for row in waiting(reader)] == [2, 3]


def test_each_move_waits_once_with_what_was_before(ledger: Ledger, reader: OutboxReader) -> None:
    stuck = hop(1, state=State.STUCK, reason=Reason.WAITING, judged_at=START)
    commit(ledger, message(1, trace_context=CONTEXT, order_id=None), hop(1))
    commit(ledger, stuck)
    commit(ledger, stuck._replace(reason=Reason.NO_CONSUMER))  # no move: the verdict stands
    commit(ledger, hop(1, state=State.LOST, reason=Reason.QUEUE_EMPTY, judged_at=START))
    commit(ledger, hop(1, state=State.LATE, wait=90_000_000, attempts=1))
    assert waiting(reader) == [
        (1, 0, State.LATE, 1, None, State.LOST),
        (1, 0, State.STUCK, 0, Reason.WAITING, None),
        (1, 0, State.LOST, 0, Reason.QUEUE_EMPTY, State.STUCK),
    ]


def test_a_redelivery_waits_with_all_waits(ledger: Ledger, reader: OutboxReader) -> None:
    commit(ledger, message(1, trace_context=CONTEXT, order_id=None), delivered(1))
    commit(ledger, delivered(1, attempts=3), again=2)
    first, again = reader.read(10).rows
    assert _short(first) == (1, 0, State.DELIVERED, 1, None, None)
    assert _short(again) == (1, 0, State.DELIVERED, 3, None, State.DELIVERED)
    assert (first.further_waits, again.further_waits) == ((), ((2, 6000), (3, 7000)))


def test_deliveries_within_one_batch_wait_once(ledger: Ledger, reader: OutboxReader) -> None:
    commit(ledger, message(1, trace_context=CONTEXT, order_id=None), delivered(1, attempts=2))
    (row,) = reader.read(10).rows
    assert _short(row) == (1, 0, State.DELIVERED, 2, None, None)
    assert row.further_waits == ((2, 6000),)


def test_a_row_is_read_with_all_that_is_known(ledger: Ledger, reader: OutboxReader) -> None:
    routed = message(1, trace_context=CONTEXT, routing_key="order.message-1", size=5, correlation_id="c-1")
    commit(ledger, routed, hop(1), delivered(1, 1, queue="other", flow="crm->shop"))
    _, row = reader.read(10).rows
    assert row == Outgoing(
        key=(1, 1, 1, 1), message=1, hop=1, state=State.DELIVERED, reason=None, attempts=1, before=None, queue="other",
        flow="crm->shop", first_flow="crm->mes", deadline=60_000_000, wait=5000, judged_at=None, redelivered=False,
        further_waits=(), vhost="/", exchange="crm.orders", routing_key="order.message-1", message_id="message-1",
        identity=1001, order_id="ORD-1", stage="SUBMITTED", sender="crm", size=5, trace_context=CONTEXT,
        published_at=START + 1_000_000, time_source="arrival", correlation_id="c-1",
    )  # fmt: skip


def test_without_tracing_nothing_is_written_and_what_waits_is_given_up(path: Path) -> None:
    with_tracing = Ledger.open(path, outbox_rows=1000)
    commit(with_tracing, message(1), delivered(1))
    with_tracing.close()
    without = Ledger.open(path)
    commit(without, message(2), delivered(2))
    with without.transaction("test") as conn:
        assert module.clear(conn) == 2
    without.close()
    with Reader.open(path) as reader:
        row = reader.tracing()
    assert (row["waiting"], row["dropped"]) == (0, 2)


# what goes


def test_what_was_told_goes_and_is_counted(ledger: Ledger, reader: OutboxReader) -> None:
    commit(ledger, message(1), delivered(1))
    batch = reader.read(1)
    order = OrderTrace(order_key("/", "ORD-1"), None, True, "SUBMITTED", 1, START, START)
    done(ledger, batch, Told(spans=2, invalid_contexts=1), order)
    done(ledger, reader.read(1), Told(spans=1))
    assert waiting(reader) == []
    with Reader.open(ledger.path) as queries:
        row = queries.tracing()
    assert (row["spans"], row["invalid_contexts"], row["waiting"], row["exported_at"]) == (3, 1, 0, START)
    commit(ledger, message(2))
    assert reader.read(1).orders == {order.key: order}


def test_what_came_while_it_was_told_stays(ledger: Ledger, reader: OutboxReader) -> None:
    commit(ledger, message(1), hop(1), message(2), delivered(2))
    batch = reader.read(10)
    commit(ledger, hop(1, state=State.LOST, reason=Reason.QUEUE_EMPTY, judged_at=START))
    done(ledger, batch)
    assert [row[2] for row in waiting(reader)] == [State.LOST]


def test_when_it_is_full_the_oldest_healthy_go_first_and_verdicts_last(path: Path) -> None:
    ledger = Ledger.open(path, outbox_rows=100)
    reader = OutboxReader(path)
    lost: dict[str, Any] = {"state": State.LOST, "reason": Reason.QUEUE_EMPTY, "judged_at": START}
    for number in range(1, 51):
        commit(ledger, message(number, trace_context=CONTEXT, order_id=None), hop(number, **lost))
    for number in range(51, 201):
        commit(ledger, message(number, trace_context=CONTEXT, order_id=None), delivered(number))
    rows = waiting(reader)
    assert [row[0] for row in rows if row[2] is State.LOST] == list(range(1, 51))
    healthy = [row[0] for row in rows if row[2] is State.DELIVERED]
    assert healthy == list(range(201 - len(healthy), 201))
    assert 98 <= len(rows) <= 100
    # only when nothing else is there do verdicts go, the oldest first
    for number in range(201, 401):
        commit(ledger, message(number, trace_context=CONTEXT, order_id=None), hop(number, **lost))
    rows = waiting(reader)
    assert {row[2] for row in rows} == {State.LOST}
    assert [row[0] for row in rows] == list(range(401 - len(rows), 401))
    reader.close()
    ledger.close()
    with Reader.open(path) as queries:
        row = queries.tracing()
    assert row["dropped"] + row["waiting"] == 400


def test_the_bound_holds_after_a_batch_that_was_undone(ledger: Ledger, reader: OutboxReader) -> None:
    commit(ledger, message(1), delivered(1))
    with pytest.raises(Exception, match="UNIQUE"):
        commit(ledger, message(2), message(1))
    commit(ledger, message(2), delivered(2))
    assert ledger.outbox is not None
    assert len(waiting(reader)) == 4


def test_pruning_leaves_what_waits(ledger: Ledger, reader: OutboxReader) -> None:
    for number in (1, 2, 3):
        commit(ledger, message(number), delivered(number))
    done(ledger, reader.read(2))
    late = START + 10**12
    while prune(ledger, healthy_before=late, verdicts_before=late):
        pass
    assert {row.message for row in reader.read(10).rows} == {2, 3}
    assert reader.read(10).vanished == []
    done(ledger, reader.read(10), None, OrderTrace(1, None, True, None, None, None, START))
    while prune(ledger, healthy_before=late, verdicts_before=late):
        pass
    with Reader.open(ledger.path) as queries:
        assert [row["message"] for row in queries.hops()] == [3]  # the newest always stays
    count = ledger.db.conn.execute("SELECT count(*) FROM order_traces").fetchone()
    assert count == (0,)


def test_a_message_that_is_gone_all_the_same_is_named(ledger: Ledger, reader: OutboxReader) -> None:
    commit(ledger, message(1), delivered(1), message(2))
    with ledger.transaction("test") as conn:
        conn.execute("DELETE FROM messages WHERE id = 1")
    batch = reader.read(10)
    assert ([row.message for row in batch.rows], len(batch.vanished)) == ([2], 2)


# what a crash leaves


_WRITER = """
    import os, signal, sys
    from pathlib import Path
    from auditor.core.changes import Changes
    from auditor.ledger.writer import Ledger
    from tests.ledger.rows import delivered, delivery, message
    from tests.ledger.synthetic import status

    ledger = Ledger.open(Path(sys.argv[1]), outbox_rows=100_000)
    for start in range(1, 100_000, 50):
        changes = Changes()
        for number in range(start, start + 50):
            changes.messages.append(message(number))
            changes.hops.append(delivered(number))
            changes.deliveries.append(delivery(number))
        ledger.commit(changes, status=status())
        print(start, flush=True)
"""


def test_after_a_kill_messages_and_outbox_agree(path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_WRITER), str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    for _ in range(5):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    Ledger.open(path, outbox_rows=100_000).close()
    reader = OutboxReader(path)
    rows = reader.read(1_000_000).rows
    reader.close()
    conn = sqlite3.connect(path)
    messages = [id for (id,) in conn.execute("SELECT id FROM messages ORDER BY id")]
    conn.close()
    assert len(messages) >= 250
    assert [row.message for row in rows if row.hop == PUBLISH] == messages
    assert [row.message for row in rows if row.hop == 0] == messages


# where it can be looked at


def test_the_traces_of_orders_and_messages_are_found(ledger: Ledger) -> None:
    other = CONTEXT.replace("0af7", "1af7")
    commit(ledger, message(1), message(2, trace_context=other), message(3, order_id="ORD-2", trace_context=CONTEXT))
    commit(ledger, message(4, order_id=None), message(5, order_id=None, trace_context="garbage"))
    own = order_trace_id("/", "ORD-1").hex()
    with Reader.open(ledger.path) as queries:
        # nothing was exported so far, so there is nothing of our own to look at
        assert queries.order_traces("ORD-1") == [other[3:35]]
        assert queries.message_trace(queries.message("message-1")[0]) is None
        assert queries.message_trace(queries.message("message-4")[0]) is None
    told = OrderTrace(order_key("/", "ORD-1"), None, True, None, None, None, START)
    done(ledger, Batch([], [], {}), Told(spans=1), told)
    with Reader.open(ledger.path) as queries:
        assert queries.order_traces("ORD-1") == [own, other[3:35]]
        assert queries.order_traces("ORD-2") == [CONTEXT[3:35]]
        assert queries.order_traces("ORD-3") == []
        traces = [queries.message_trace(queries.message(f"message-{number}")[0]) for number in range(1, 6)]
        assert traces == [own, other[3:35], CONTEXT[3:35], *(message_trace_id("/", 1000 + n, n).hex() for n in (4, 5))]


def test_a_survey_tells_what_was_exported_and_how_long_the_oldest_waits(ledger: Ledger, reader: OutboxReader) -> None:
    commit(ledger, message(1, published_at=START), message(2, published_at=START + 7), delivered(1), delivered(2))
    with Reader.open(ledger.path) as look:
        assert exports(look) == Exports(waiting=4, oldest_at=START)
    batch = reader.read(2)
    assert {row.message for row in batch.rows} == {1}
    done(ledger, batch, Told(spans=3, refused=2, dropped=1, unsampled=1, invalid_contexts=4))
    with Reader.open(ledger.path) as look:
        assert exports(look) == Exports(3, 2, 1, 4, waiting=2, oldest_at=START + 7)
    done(ledger, reader.read(9))
    with Reader.open(ledger.path) as look:
        assert exports(look) == Exports(3, 2, 1, 4, waiting=0, oldest_at=None)


def exports(reader: Reader) -> Exports:
    return reader.survey(pid=1, now=START, since=0, gaps_since=0).exports
