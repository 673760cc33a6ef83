"""Recognising events that the broker sends again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from auditor.core.seen import Seen


def test_a_committed_event_is_recognised_once_a_connection() -> None:
    seen = Seen(10)
    seen.add([b"a"])
    seen.reconnect()
    assert seen.repeats([b"a"], 1) == 1
    assert seen.repeats([b"a"], 1) == 0
    seen.reconnect()
    assert seen.repeats([b"a", b"b"], 2) == 1


def test_what_was_committed_on_this_connection_is_not_expected_on_it() -> None:
    # an equal event is a second publish of the same message then, not a repeat of the first
    seen = Seen(10)
    assert seen.repeats([b"a"], 0) == 0
    seen.add([b"a"])
    assert seen.repeats([b"a"], 1) == 0


def test_what_is_not_flagged_is_new() -> None:
    seen = Seen(10, [b"a", b"b"])
    assert seen.repeats([b"a", b"b"], 0) == 0


def test_two_equal_events_are_recognised_twice() -> None:
    seen = Seen(10, [b"a", b"b", b"a"])
    assert seen.repeats([b"a", b"b", b"a", b"a"], 4) == 3


def test_an_event_that_equals_an_acknowledged_one_is_new() -> None:
    # "a" was acknowledged, "b" was not, and the second "a" was sent and never taken in
    assert Seen(10, [b"a", b"b"]).repeats([b"b", b"a", b"c"], 3) == 1
    # nor was "b" this time
    assert Seen(10, [b"a", b"b"]).repeats([b"a", b"c"], 2) == 0
    assert Seen(10, [b"a", b"b"]).repeats([b"a", b"b"], 1) == 0


def test_a_long_end_may_come_again_in_several_batches() -> None:
    seen = Seen(10, [b"a", b"b", b"c", b"d"])
    assert seen.repeats([b"b"], 1) == 1
    assert seen.repeats([b"c"], 1) == 1
    assert seen.repeats([b"d", b"e"], 2) == 1
    assert seen.repeats([b"b"], 1) == 0


def test_the_beginning_of_what_comes_again_may_be_missing() -> None:
    # a trace queue that is full drops the oldest
    assert Seen(10, [b"a", b"b", b"c"]).repeats([b"c", b"d"], 2) == 1


def test_only_the_newest_are_remembered() -> None:
    assert Seen(2, [b"a", b"b", b"c"]).repeats([b"a", b"b", b"c"], 3) == 0
    assert Seen(2, [b"a", b"b", b"c"]).repeats([b"b", b"c"], 2) == 2


@given(
    events=st.lists(st.sampled_from("abcd"), max_size=60),
    batch=st.integers(1, 7),
    prefetch=st.integers(7, 20),
    data=st.data(),
)
def test_each_event_is_taken_in_once_wherever_the_connection_breaks(
    events: list[str], batch: int, prefetch: int, data: st.DataObject
) -> None:
    """The broker sends again what was not acknowledged; the reader is cut off after some commits."""
    digests = [f"{event}{number}".encode() for number, event in enumerate(events)]
    seen = Seen(2 * prefetch)
    taken: list[bytes] = []
    acknowledged = sent = 0
    while acknowledged < len(digests):
        until = min(acknowledged + batch, len(digests))
        batch_digests = digests[acknowledged:until]
        new = batch_digests[seen.repeats(batch_digests, max(0, min(sent, until) - acknowledged)) :]
        sent = max(sent, until)
        taken += new
        seen.add(new)
        if data.draw(st.booleans()):
            acknowledged = until
        else:
            seen = Seen(2 * prefetch, seen._newest)
    assert taken == digests
