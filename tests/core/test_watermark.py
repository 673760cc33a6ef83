"""The watermark: how far the audit has seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.core.watermark import Watermark

MARGIN = 20
NODE = ""


def test_before_the_first_canary_nothing_is_known() -> None:
    watermark = Watermark(MARGIN)
    watermark.sent(NODE, 1, 100)
    assert (watermark.at, watermark.horizon) == (None, None)


def test_it_is_the_newest_canary_that_came_back_and_the_horizon_lies_a_margin_before() -> None:
    watermark = Watermark(MARGIN)
    for number, at in ((1, 100), (2, 110), (3, 120)):
        watermark.sent(NODE, number, at)
    watermark.returned(NODE, 1, 100)
    watermark.returned(NODE, 2, 110)
    assert (watermark.at, watermark.horizon) == (110, 90)


def test_it_never_goes_back() -> None:
    """A canary of an earlier run may be found in the backlog."""
    watermark = Watermark(MARGIN, at=100)
    watermark.returned(NODE, 7, 50)
    assert watermark.at == 100


def test_it_stands_still_while_no_canary_comes_back_and_says_since_when() -> None:
    watermark = Watermark(MARGIN, at=100)
    assert watermark.silent() == {}
    watermark.sent(NODE, 1, 110)
    watermark.sent(NODE, 2, 120)
    assert (watermark.at, watermark.silent()) == (100, {NODE: 110})
    watermark.returned(NODE, 1, 110)
    assert (watermark.at, watermark.silent()) == (110, {NODE: 120})
    watermark.returned(NODE, 2, 120)
    assert (watermark.at, watermark.silent()) == (120, {})


def test_a_later_canary_ends_the_wait_for_the_earlier_ones() -> None:
    watermark = Watermark(MARGIN)
    for number in (1, 2, 3):
        watermark.sent(NODE, number, number * 10)
    watermark.returned(NODE, 2, 20)
    assert watermark.silent() == {NODE: 30}


def test_a_canary_that_was_passed_over_is_told() -> None:
    watermark = Watermark(MARGIN)
    for number in (1, 2, 3):
        watermark.sent(NODE, number, number * 10)
    assert not watermark.returned(NODE, 1, 10)
    assert watermark.returned(NODE, 3, 30), "the second one is lost, and who knows what with it"


def test_a_canary_whose_trace_event_was_quicker_than_its_note_is_not_waited_for() -> None:
    watermark = Watermark(MARGIN)
    assert not watermark.returned(NODE, 1, 10)
    watermark.sent(NODE, 1, 10)
    assert watermark.silent() == {}


def test_an_older_canary_does_not_end_the_wait_for_a_newer_one() -> None:
    watermark = Watermark(MARGIN)
    watermark.sent(NODE, 1, 10)
    watermark.returned(NODE, 99, 5)
    assert watermark.silent() == {NODE: 10}


def test_canaries_of_a_lost_connection_are_given_up() -> None:
    watermark = Watermark(MARGIN, at=100)
    watermark.sent(NODE, 1, 110)
    watermark.forget(NODE)
    assert (watermark.at, watermark.silent()) == (100, {})


# several nodes


@pytest.fixture
def two() -> Watermark:
    """A watermark of two nodes, of which each has shown a canary."""
    watermark = Watermark(MARGIN, nodes=("a", "b"))
    for number, node in enumerate(("a", "b")):
        watermark.sent(node, number, 100)
        watermark.returned(node, number, 100)
    return watermark


def test_it_goes_by_the_node_that_is_furthest_behind(two: Watermark) -> None:
    assert two.at == 100
    for number, at in ((2, 110), (3, 120)):
        two.sent("a", number, at)
        two.returned("a", number, at)
    two.sent("b", 4, 110)
    assert (two.at, two.newest, two.silent()) == (100, 120, {"b": 110})
    two.returned("b", 4, 110)
    assert two.at == 110


def test_before_each_node_has_shown_a_canary_nothing_is_known() -> None:
    watermark = Watermark(MARGIN, nodes=("a", "b"))
    seen = []
    for number, node in enumerate(("a", "b")):
        watermark.returned(node, number, 100 + number)
        seen.append(watermark.at)
    assert seen == [None, 100]


def test_a_canary_missing_at_one_node_is_not_proven_by_one_of_another(two: Watermark) -> None:
    two.sent("a", 2, 110)
    two.sent("b", 3, 111)
    assert not two.returned("b", 3, 111)
    assert two.silent() == {"a": 110}


def test_a_node_that_is_left_out_does_not_hold_it_up_and_has_to_show_a_canary_when_it_is_back(two: Watermark) -> None:
    two.sent("b", 2, 110)
    two.leave_out({"b"})
    assert two.silent() == {}
    two.returned("a", 3, 150)
    assert two.at == 150
    two.leave_out(frozenset())
    two.returned("a", 4, 160)
    assert two.at == 150
    two.sent("b", 5, 155)
    two.returned("b", 5, 155)
    assert two.at == 155


def test_it_does_not_go_back_when_a_node_is_back(two: Watermark) -> None:
    two.leave_out({"b"})
    two.returned("a", 3, 150)
    two.leave_out(frozenset())
    two.returned("b", 2, 110)  # an old one, from the backlog
    assert two.at == 150


def test_a_canary_of_a_node_that_is_no_longer_configured_tells_nothing(two: Watermark) -> None:
    assert not two.returned("c", 7, 500)
    assert (two.at, two.newest) == (100, 100)


def test_the_upcoming_canary_is_known_when_each_node_has_one_out(two: Watermark) -> None:
    known = []
    for node, number, at in (("a", 2, 110), ("b", 3, 112), ("b", 4, 122)):
        two.sent(node, number, at)
        known.append(two.upcoming)
    assert known == [None, 112, 112], "what goes through the other may have been published just now"
    two.forget("a")
    assert two.upcoming is None


def test_years_of_silence_take_no_memory_and_keep_the_oldest() -> None:
    watermark = Watermark(MARGIN)
    for number in range(30_000):
        watermark.sent(NODE, number, number)
    assert watermark.silent() == {NODE: 0}
    assert len(watermark._nodes[NODE].out) <= 10_000


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.sampled_from("ab")),
            st.tuples(st.just("return"), st.sampled_from("ab")),
            st.tuples(st.just("lose"), st.sampled_from("ab")),
            st.tuples(st.just("leave"), st.sampled_from(["", "a", "b"])),
        )
    )
)
def test_it_never_goes_back_nor_past_what_a_watched_node_has_shown(steps: list[tuple[str, str]]) -> None:
    watermark = Watermark(MARGIN, nodes=("a", "b"))
    out: dict[str, list[tuple[int, int]]] = {"a": [], "b": []}
    shown = {"a": 0, "b": 0}  # or: since when it is watched again
    away: set[str] = set()
    before = 0
    for number, (what, node) in enumerate(steps, 1):
        match what:
            case "send" if node not in away:
                watermark.sent(node, number, number)
                out[node].append((number, number))
            case "return" if out[node]:
                watermark.returned(node, *out[node][0])
                shown[node] = max(shown[node], out[node].pop(0)[1])
            case "lose" if out[node]:
                out[node].pop(0)
            case "leave":
                back = away - {node}
                away = {node} - {""}
                for one in back:
                    shown[one] = max(shown[one], before)
                watermark.leave_out(away)
        at = watermark.at or 0
        assert at >= before
        assert at <= max(before, min(shown[one] for one in ("a", "b") if one not in away))
        before = at
