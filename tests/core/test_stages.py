"""Orders through their stages: entering, leaving, skipping, going back, errors, and what memory forgets."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from auditor.core.changes import MessageRow, StageEntry
from auditor.core.stages import Orders, Recall, Stage, StageTable
from tests.ledger import rows

STAGES = StageTable([Stage("A", "shop", 100), Stage("B", "crm", None), Stage("C", "mes", 50), Stage("D", "crm", 70)])

_ids = count(1)


def said(stage: str | None, at: int, order: str | None = "O-1", **others: Any) -> MessageRow:
    id = next(_ids)
    return rows.message(id, order_id=order, stage=stage, published_at=at, message_id=f"m-{id}", **others)


class Stored:
    """What a ledger would have kept."""

    def __init__(self) -> None:
        self.entries: dict[int, StageEntry] = {}
        self.asked = 0

    def take(self, entries: list[StageEntry]) -> list[StageEntry]:
        self.entries |= {entry.message: entry for entry in entries}
        return entries

    def entry(self, order: str) -> StageEntry | None:
        self.asked += 1
        return next((entry for entry in self.entries.values() if entry.order_id == order and entry.open), None)

    def stages(self, entry: StageEntry | None) -> list[str]:
        found = []
        while entry is not None:
            found.append(entry.stage)
            entry = None if entry.previous is None else self.entries[entry.previous]
        return found


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def orders(stored: Stored) -> Orders:
    return Orders(STAGES, Recall(stored.entry, stored.stages))


def test_an_order_that_goes_as_it_should(orders: Orders) -> None:
    announced = [said("A", 10), said("B", 20), said("C", 50), said("D", 90)]
    entries = {entry.stage: entry for entry in orders.see(announced)}
    assert [(e.entered_at, e.left_at, e.steps, e.repeated) for e in entries.values()] == [
        (10, 20, None, False), (20, 50, 1, False), (50, 90, 1, False), (90, None, 1, False)
    ]  # fmt: skip
    assert [entry.system for entry in entries.values()] == ["shop", "crm", "mes", "crm"]
    assert [entry.due_at for entry in entries.values()] == [
        110,
        None,
        100,
        None,
    ]  # nothing is due of an order that ends
    assert [entry.open for entry in entries.values()] == [False] * 4
    assert [entry.ends for entry in entries.values()] == [False, False, False, True]
    assert {entry.began_at for entry in entries.values()} == {10}


def test_where_it_is_it_is_open(orders: Orders) -> None:
    (entry,) = orders.see([said("A", 10)])
    assert (entry.open, entry.left_at) == (True, None)
    left, entered = orders.see([said("B", 20)])
    assert (left.stage, left.open, left.left_at) == ("A", False, 20)
    assert (entered.stage, entered.open, entered.previous) == ("B", True, left.message)


def test_skipping_going_back_and_repeating(orders: Orders) -> None:
    entries = orders.see([said(stage, at) for at, stage in enumerate("ACBCD")])
    assert [(e.stage, e.steps, e.repeated) for e in entries] == [
        ("A", None, False), ("C", 2, False), ("B", -1, False), ("C", 1, True), ("D", 1, False)
    ]  # fmt: skip


def test_an_order_that_was_not_seen_from_the_first_stage_has_no_beginning(orders: Orders) -> None:
    entries = orders.see([said("B", 10), said("C", 20), said("D", 30)])
    assert [entry.began_at for entry in entries] == [None] * 3
    assert entries[0].steps is None  # that it skipped A is not claimed


def test_the_same_stage_again_is_no_entry(orders: Orders) -> None:
    orders.see([said("A", 10)])
    assert orders.see([said("A", 20)]) == []


def test_a_message_that_is_published_again_says_nothing_new(orders: Orders) -> None:
    first = said("A", 10)
    orders.see([first, said("B", 20)])
    assert orders.see([first._replace(id=next(_ids), published_at=30)]) == []
    (left, again) = orders.see([said("A", 40)])
    assert (left.stage, again.stage, again.steps) == ("B", "A", -1)


def test_alike_without_a_message_id_are_two(orders: Orders) -> None:
    first = said("A", 10)._replace(message_id=None)
    orders.see([first, said("B", 20)])
    entries = orders.see([first._replace(id=next(_ids), published_at=30)])
    assert [entry.stage for entry in entries] == ["B", "A"]


def test_errors_mark_the_stage_that_the_order_is_in(orders: Orders) -> None:
    orders.see([said("A", 10)])
    (entry,) = orders.see([said(None, 20, error="no stock"), said("A", 30, error="still none")])
    assert (entry.stage, entry.errors, entry.error) == ("A", 2, "still none")
    left, entered = orders.see([said("B", 40, error="and now this")])
    assert (left.errors, entered.errors, entered.error) == (2, 1, "and now this")


def test_what_says_nothing_of_an_order_costs_nothing(orders: Orders, stored: Stored) -> None:
    assert orders.see([said(None, 10), said("A", 10, order=None), said(None, 10, order=None, error="x")]) == []
    assert orders.see([said(None, 10, error="of an order that nobody knows")]) == []
    assert len(orders) == 0
    assert stored.asked == 1


def test_a_stage_that_is_not_set_is_recorded_and_nothing_is_expected(orders: Orders) -> None:
    orders.see([said("A", 10)])
    left, entered = orders.see([said("X", 20, sender="erp")])
    assert (left.left_at, entered.system, entered.open, entered.due_at, entered.steps) == (20, "erp", False, None, None)
    assert [entry.steps for entry in orders.see([said("B", 30)])] == [None, None]


def test_an_event_that_came_too_late_leaves_no_negative_time(orders: Orders) -> None:
    orders.see([said("A", 100)])
    left, _ = orders.see([said("B", 90)])
    assert left.left_at == 100


def test_memory_is_bounded_and_the_ledger_knows_the_rest(stored: Stored) -> None:
    orders = Orders(STAGES, Recall(stored.entry, stored.stages), limit=10)
    for number in range(100):
        stored.take(orders.see([said("A", number, f"O-{number}"), said("C", number, f"O-{number}")]))
    assert 5 <= len(orders) <= 10
    left, entered = orders.see([said("A", 1000, "O-0")])
    assert (left.stage, left.entered_at, entered.repeated, entered.began_at) == ("C", 0, True, 0)


def test_an_order_that_ended_before_a_restart_is_known(stored: Stored) -> None:
    before = Orders(STAGES, Recall(stored.entry, stored.stages))
    stored.take(before.see([said("A", 10), said("D", 20)]))
    after = Orders(STAGES, Recall(stored.entry, stored.stages))
    after.restore(entry for entry in stored.entries.values() if entry.left_at is None)
    left, entered = after.see([said("D", 30), said("A", 40)])
    assert (left.stage, entered.stage, entered.repeated, entered.began_at) == ("D", "A", True, 10)


def test_two_stages_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        StageTable([Stage("A", "", None), Stage("A", "", None)])
