"""Stages in the ledger: entries are kept, found again, and go by age."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from auditor.core.changes import Changes
from auditor.core.stages import Orders, Recall, Stage, StageTable
from auditor.ledger.interning import DAY
from auditor.ledger.queries import Reader
from auditor.ledger.retention import prune
from auditor.ledger.writer import GapRow, Ledger
from tests.ledger.rows import delivered, message
from tests.ledger.synthetic import START, status

SECOND = 1_000_000
STAGES = StageTable([Stage("A", "shop", 60 * SECOND), Stage("B", "crm", 60 * SECOND), Stage("C", "mes", None)])


def orders_of(ledger: Ledger, limit: int = 100) -> Orders:
    return Orders(STAGES, Recall(ledger.open_entry, ledger.stages_of), limit=limit)


def commit(ledger: Ledger, orders: Orders, *announced: tuple[int, str, str | None], at: int = START) -> None:
    """Write messages: number, order and stage; each a second after the one before."""
    messages = [
        message(id, order_id=order, stage=stage, published_at=START + id * SECOND) for id, order, stage in announced
    ]
    hops = [delivered(id) for id, _, _ in announced]
    changes = Changes(messages=messages, hops=hops, entries=orders.see(messages))
    ledger.commit(changes, status=status(updated_at=at))


def test_an_order_is_found_again_with_all_that_it_was_in(ledger: Ledger) -> None:
    commit(ledger, orders_of(ledger), (1, "O-1", "A"), (2, "O-1", "B"), (3, "O-2", "A"))
    entry = ledger.open_entry("O-1")
    assert entry is not None
    assert (entry.stage, entry.message, entry.previous, entry.began_at) == ("B", 2, 1, START + SECOND)
    assert entry.open is True
    assert sorted(ledger.stages_of(entry)) == ["A", "B"]
    assert ledger.open_entry("O-9") is None


def test_it_goes_on_after_it_was_forgotten(ledger: Ledger) -> None:
    commit(ledger, orders_of(ledger), (1, "O-1", "A"), (2, "O-1", "B"))
    commit(ledger, orders_of(ledger), (3, "O-1", "A"), (4, "O-1", "C"))
    with closing(sqlite3.connect(ledger.path)) as conn:
        rows = conn.execute(
            "SELECT stage, seconds, current, skipped, repeated, backwards, ends, processing_seconds FROM stages"
            " WHERE order_id = 'O-1' ORDER BY at"
        ).fetchall()
    assert [row[:1] + row[2:] for row in rows] == [
        ("A", 0, None, 0, 0, 0, None),
        ("B", 0, 0, 0, 0, 0, None),
        ("A", 0, 0, 1, 1, 0, None),
        ("C", 1, 1, 0, 0, 1, 3.0),
    ]
    assert [row[1] for row in rows[:3]] == [1.0, 1.0, 1.0]
    assert ledger.open_entry("O-1") is None  # nothing more is expected of it


def test_the_newest_entries_are_those_without_a_later_one(ledger: Ledger) -> None:
    commit(ledger, orders_of(ledger), (1, "O-1", "A"), (2, "O-2", "A"), (3, "O-1", "C"), (4, "O-3", "A"))
    assert [(entry.order_id, entry.stage) for entry in ledger.newest_entries(100)] == [
        ("O-2", "A"), ("O-1", "C"), ("O-3", "A")
    ]  # fmt: skip
    assert [entry.order_id for entry in ledger.newest_entries(2)] == ["O-1", "O-3"]


def test_a_batch_that_was_written_late_does_not_reopen_an_entry(ledger: Ledger) -> None:
    orders = orders_of(ledger)
    first, second = message(1, order_id="O-1", stage="A"), message(2, order_id="O-1", stage="B")
    late = Changes(messages=[first], entries=orders.see([first]))
    ledger.commit(Changes(messages=[second], entries=orders.see([second])), status=status())
    ledger.commit(late, status=status(vhost="other"))
    entry = ledger.open_entry("O-1")
    assert entry is not None
    assert entry.stage == "B"


def test_stuck_is_what_is_due_by_the_watermark(ledger: Ledger) -> None:
    orders = orders_of(ledger)
    commit(ledger, orders, (1, "O-1", "A"), (2, "O-2", "A"), at=START + 61 * SECOND + 1)
    with Reader.open(ledger.path) as reader:
        assert [row["order_id"] for row in reader.open_orders()] == ["O-1", "O-2"]
        assert [row["order_id"] for row in reader.open_orders(stuck=True)] == ["O-1"]
        assert reader.open_orders(stage="B") == []
        assert [row["message"] for row in reader.open_orders(system="shop")] == [1, 2]
        assert reader.stuck_entries() == [1]
        assert reader.stuck_entries(order="O-2") == []
    # a second vhost that is behind: the order may have gone on there
    ledger.commit(Changes(), status=status(vhost="behind", updated_at=START + 70 * SECOND, watermark=START))
    with Reader.open(ledger.path) as reader:
        assert reader.open_orders(stuck=True) == []
    # one of an earlier run, which is audited no longer, has no say
    ledger.commit(Changes(), status=status(vhost="behind", updated_at=START, watermark=START, pid=7))
    with Reader.open(ledger.path) as reader:
        assert [row["order_id"] for row in reader.open_orders(stuck=True)] == ["O-1"]


def test_a_gap_since_it_entered_is_said(ledger: Ledger) -> None:
    commit(ledger, orders_of(ledger), (1, "O-1", "A"), (20, "O-2", "A"))
    gap = GapRow(1, "/", "blind", START + 5 * SECOND, START + 10 * SECOND)
    first = GapRow(2, "/", "first_start", None, START + 99 * SECOND)
    ledger.commit(Changes(), status=status(), gaps=[gap, first])
    with Reader.open(ledger.path) as reader:
        assert [(row["order_id"], row["blind"]) for row in reader.open_orders()] == [("O-1", 1), ("O-2", 0)]


def test_times_of_stages(ledger: Ledger) -> None:
    orders = orders_of(ledger)
    id = 0
    for seconds in range(1, 101):
        order = f"O-{seconds}"
        first = message(id := id + 1, order_id=order, stage="A", published_at=START)
        second = message(id := id + 1, order_id=order, stage="B", published_at=START + seconds * SECOND)
        changes = Changes(messages=[first, second], entries=orders.see([first, second]))
        ledger.commit(changes, status=status())
    with Reader.open(ledger.path) as reader:
        a, b = reader.stage_times()
    assert (a["stage"], a["system"], a["entries"], a["orders_in_it"]) == ("A", "shop", 100, 0)
    assert (a["mean_seconds"], a["median_seconds"], a["p95_seconds"], a["max_seconds"]) == (50.5, 50, 95, 100)
    assert (b["stage"], b["orders_in_it"], b["median_seconds"]) == ("B", 100, None)


def test_what_has_ended_goes_with_its_message_and_what_waits_stays(ledger: Ledger) -> None:
    orders = orders_of(ledger)
    commit(ledger, orders, (1, "O-1", "A"), (2, "O-1", "C"), (3, "O-2", "A"), at=START)
    commit(ledger, orders, (4, "O-3", "A"), at=START)
    with closing(sqlite3.connect(ledger.path)) as conn:
        assert conn.execute("SELECT count(*) FROM stage_entries").fetchone() == (4,)
    while prune(ledger, healthy_before=START + DAY, verdicts_before=START - DAY):
        pass

    def left() -> list[str]:
        with closing(sqlite3.connect(ledger.path)) as conn:
            return [order for (order,) in conn.execute("SELECT order_id FROM stages ORDER BY message")]

    assert left() == ["O-2", "O-3"]
    entry = ledger.open_entry("O-2")
    assert entry is not None
    assert (entry.stage, entry.system) == ("A", "shop")
    while prune(ledger, healthy_before=START + DAY, verdicts_before=START + DAY):
        pass
    assert left() == ["O-3"]  # of the newest message


def test_how_long_it_was_in_a_stage_is_kept_from_when_it_left(ledger: Ledger) -> None:
    orders = orders_of(ledger)
    days = 40 * DAY // SECOND
    commit(ledger, orders, (1, "O-1", "A"), (2, "O-2", "A"), (3, "O-2", "B"), (days, "O-1", "B"))
    while prune(ledger, healthy_before=START + 10 * DAY, verdicts_before=START - DAY):
        pass
    with Reader.open(ledger.path) as reader:
        times = {row["stage"]: (row["entries"], row["max_seconds"]) for row in reader.stage_times()}
    assert times == {"A": (1, days - 1), "B": (2, None)}  # that of O-2 went with its message
