"""What is counted, and that no label grows without bound."""

from __future__ import annotations

from typing import Any

from auditor.core import tally as module
from auditor.core.changes import Changes, Move, StageEntry
from auditor.core.hops import Reason, State
from auditor.core.tally import MAX_LABELS, Histogram, Tally
from tests.ledger import rows
from tests.ledger.synthetic import status


def entry(message: int, **others: Any) -> StageEntry:
    bare = StageEntry(message=message, order_id="O", stage="A", system="shop", vhost="/", entered_at=0)
    return bare._replace(**others)


def counted(changes: Changes, tally: Tally | None = None, causes: tuple[str, ...] = ()) -> Tally:
    tally = tally or Tally()

    class Event:
        def __init__(self, cause: str) -> None:
            self.cause = cause

    tally.committed(changes, status(), [Event(cause) for cause in causes], 0.004)
    return tally


def test_a_histogram_counts_a_value_on_an_edge_below_it() -> None:
    histogram = Histogram((1, 2))
    histogram.observe((0.5, 1, 1.5, 2, 3))
    assert (histogram.counts, histogram.sum) == ([2, 2, 1], 8)


def test_moves_of_hops() -> None:
    moves: list[Move] = [
        ("f", "q", None, State.IN_FLIGHT, None, None),
        ("f", "q", State.IN_FLIGHT, State.DELIVERED, None, 2000),
        ("f", "q", None, State.IN_FLIGHT, None, None),
        ("f", "q", State.IN_FLIGHT, State.STUCK, Reason.WAITING, None),
        ("f", "q", State.STUCK, State.STUCK, Reason.NO_CONSUMER, None),
        ("f", "q", State.STUCK, State.LOST, Reason.QUEUE_EMPTY, None),
        ("f", "q", State.LOST, State.LATE, None, 90_000_000),
        ("f", "q", State.LATE, State.DEAD_LETTERED, Reason.REJECTED, 90_000_000),
    ]
    tally = counted(Changes(moves=moves))
    assert tally.hops["f", State.IN_FLIGHT, None] == 2
    assert tally.hops["f", State.LATE, None] == 1
    assert dict(tally.against) == {
        ("f", "q", State.STUCK, Reason.WAITING): 1,
        ("f", "q", State.LOST, Reason.QUEUE_EMPTY): 1,
        ("f", "q", State.DEAD_LETTERED, Reason.REJECTED): 1,
    }
    assert (sum(tally.waits["f"].counts), tally.waits["f"].sum) == (2, 90.002)


def test_queues_beyond_a_bound_are_one() -> None:
    moves: list[Move] = [
        ("f", f"q-{number}", State.IN_FLIGHT, State.LOST, Reason.QUEUE_EMPTY, None) for number in range(MAX_LABELS + 50)
    ]
    tally = counted(Changes(moves=moves))
    assert len(tally.against) == MAX_LABELS + 1
    assert tally.against["f", module.OTHER, State.LOST, Reason.QUEUE_EMPTY] == 50


def test_stages_and_causes_beyond_a_bound_are_one() -> None:
    number = MAX_LABELS + 10
    changes = Changes(
        messages=[rows.message(id) for id in range(1, number + 1)],
        entries=[entry(id, stage=f"S-{id}") for id in range(1, number + 1)],
    )
    tally = counted(changes, causes=tuple(f"cause-{id}: detail" for id in range(number)))
    assert len(tally.entries) == MAX_LABELS + 1
    assert len(tally.causes) == MAX_LABELS + 1


def test_entries_are_counted_once_by_how_the_order_came() -> None:
    first = entry(1, open=True, began_at=0)
    tally = counted(Changes(messages=[rows.message(1)], entries=[first]))
    left = first._replace(left_at=3_000_000, open=False)
    second = entry(2, stage="C", previous=1, steps=2, repeated=True, began_at=0)
    last = entry(3, stage="D", previous=2, steps=1, ends=True, began_at=0, entered_at=9_000_000)
    messages = [rows.message(2), rows.message(3, error="broken")]
    counted(Changes(messages=messages, entries=[left, second._replace(left_at=9_000_000), last]), tally)
    assert dict(tally.entries) == {
        (("A", "shop"), "first"): 1,
        (("C", "shop"), "skipping"): 1,
        (("C", "shop"), "repeated"): 1,
        (("D", "shop"), "next"): 1,
    }
    assert tally.stage_times[("A", "shop")].sum == 3
    assert (sum(tally.processing.counts), tally.processing.sum) == (1, 9)
    assert dict(tally.errors) == {"crm": 1}
    assert dict(tally.messages) == {"crm": 3}


def test_a_processing_time_needs_a_beginning_and_is_counted_once() -> None:
    ended = entry(1, stage="D", ends=True)
    again = entry(2, stage="D", ends=True, began_at=0, repeated=True)
    tally = counted(Changes(messages=[rows.message(1), rows.message(2)], entries=[ended, again]))
    assert sum(tally.processing.counts) == 0
