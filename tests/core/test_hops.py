"""The state table."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from auditor.core.errors import IllegalMove
from auditor.core.hops import AGAINST, MOVES, OPEN, Reason, State, check_move

# The design in a form of its own: from what state a hop may go where. Delivered wins over every doubt, dead-lettered
# over everything, and neither is ever taken back. An unroutable hop is born so, and stays so.
DESIGN = {
    "in_flight": "delivered late stuck lost dead_lettered unknown",
    "stuck": "stuck late lost dead_lettered unknown",
    "lost": "late dead_lettered",
    "unknown": "late dead_lettered",
    "delivered": "dead_lettered",
    "late": "dead_lettered",
    "dead_lettered": "",
    "unroutable": "",
}
LEGAL = {(State(before), State(after)) for before, afters in DESIGN.items() for after in afters.split()}


def test_every_state_has_its_moves() -> None:
    assert set(MOVES) == set(State)


@pytest.mark.parametrize(("before", "after"), sorted(product(State, State)))
def test_the_table_is_the_designs(before: State, after: State) -> None:
    if (before, after) in LEGAL:
        check_move(before, after, "delivery", "7/0 to 'work'")
        return
    with pytest.raises(IllegalMove) as caught:
        check_move(before, after, "delivery", "7/0 to 'work'")
    for word in ("delivery", "7/0 to 'work'", before, after):
        assert word in str(caught.value)


def test_what_counts_against_a_flow_and_what_is_still_open() -> None:
    assert sorted(AGAINST) == ["dead_lettered", "lost", "stuck", "unroutable"]
    assert sorted(OPEN) == ["in_flight", "stuck"]


def test_the_words_are_the_designs() -> None:
    assert {reason.value for reason in Reason} == {
        *("waiting", "no_consumer"),
        *("queue_empty", "overtaken", "queue_missing"),
        *("expired", "rejected", "maxlen", "delivery_limit"),
        "no_queue",
        *("blind", "overflow", "queue_gone"),
        *("delayed", "transaction"),
    }


def test_the_diagram_shows_this_table() -> None:
    """docs/states.md cannot lie; to mend it, put in what this expects."""
    page = (Path(__file__).parents[2] / "docs" / "states.md").read_text(encoding="utf-8")
    moves = [f"    {before} --> {after}" for before, afters in MOVES.items() for after in sorted(afters)]
    assert "\n".join(["    [*] --> in_flight", "    [*] --> unroutable", *moves, "```"]) in page
