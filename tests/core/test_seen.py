"""Recognising events that the broker sends again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from auditor.core.seen import Seen


def test_a_committed_event_is_recognised_once_a_connection() -> None:
    seen = Seen(10)
    seen.add([b"a"])
    seen.reconnect()
    assert seen.again(b"a")
    assert not seen.again(b"a")
    seen.reconnect()
    assert seen.again(b"a")


def test_what_was_committed_on_this_connection_is_not_expected_on_it() -> None:
    # an equal event is a second publish of the same message then, not a repeat of the first
    seen = Seen(10)
    seen.add([b"a"])
    assert not seen.again(b"a")


def test_two_equal_events_are_recognised_twice() -> None:
    seen = Seen(10, [b"a", b"b", b"a"])
    assert [seen.again(b"a"), seen.again(b"a"), seen.again(b"a")] == [True, True, False]


def test_only_the_newest_are_remembered() -> None:
    seen = Seen(2, [b"a", b"b", b"c"])
    assert not seen.again(b"a")
    assert seen.again(b"b")


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
        new = [d for n, d in enumerate(digests[acknowledged:until], acknowledged) if n >= sent or not seen.again(d)]
        sent = max(sent, until)
        taken += new
        seen.add(new)
        if data.draw(st.booleans()):
            acknowledged = until
        else:
            seen = Seen(2 * prefetch, seen._newest)
    assert taken == digests
