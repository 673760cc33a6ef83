"""Recognising events that the broker sends again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from auditor.core.seen import Seen, Unconfirmed


def digests(events: str) -> list[bytes]:
    return [event.encode() for event in events]


def seen(before: str = "", last: str = "", rest: str = "") -> Seen:
    """After a crash, with what the ledger has."""
    return Seen(Unconfirmed(digests(before), digests(last), digests(rest)))


def repeats(seen: Seen, again: str, new: str = "") -> int:
    """How many of a batch were committed before; `again` are flagged as redelivered."""
    return seen.take(digests(again + new), len(again))


def test_neither_of_the_last_two_acknowledgements_may_have_come_through_or_one_or_both() -> None:
    assert repeats(seen("ab", "cd"), "abcd", "e") == 4
    assert repeats(seen("ab", "cd"), "cd", "e") == 2
    assert repeats(seen("ab", "cd"), "ef", "g") == 0


def test_what_was_delivered_before_the_crash_and_not_committed_is_new() -> None:
    assert repeats(seen("ab", "cd"), "cdef", "g") == 2


def test_what_is_not_flagged_is_new() -> None:
    assert repeats(seen("ab", "cd"), "", "abcd") == 0


def test_an_event_that_equals_the_last_one_is_new_unless_the_whole_batch_comes_again() -> None:
    """A publisher repeats itself just where the auditor was killed."""
    assert repeats(seen("ab", "cd"), "d", "e") == 0
    assert repeats(seen("ab", "cd"), "bc", "d") == 0


def test_what_comes_again_may_come_in_several_batches() -> None:
    one = seen("ab", "cd")
    assert repeats(one, "a") == 1
    assert repeats(one, "bc") == 2
    assert repeats(one, "de", "f") == 1
    assert repeats(one, "d") == 0


def test_it_may_be_broken_off_again_in_the_middle() -> None:
    one = seen("ab", "cd")
    assert repeats(one, "ab") == 2
    one.reconnect()
    assert repeats(one, "abcd", "e") == 4
    two = seen("ab", "cd")
    assert repeats(two, "ab") == 2
    two.reconnect()
    assert repeats(two, "cd", "e") == 2, "the first two were acknowledged meanwhile"


def test_on_one_connection_an_equal_event_is_a_second_one() -> None:
    one = Seen()
    assert repeats(one, "", "a") == 0
    assert repeats(one, "", "a") == 0
    one.reconnect()
    assert repeats(one, "aa", "b") == 2


def test_a_full_trace_queue_has_dropped_the_beginning() -> None:
    assert repeats(seen("abcdefgh", "ijklmnop"), "efghijklmnop", "q") == 12
    assert repeats(seen("abcdefgh", "ijklmnop"), "nop", "q") == 0, "too few to be sure"


def test_after_an_orderly_end_nothing_comes_again() -> None:
    one = seen("ab", "cd")
    one.settle()
    one.reconnect()
    assert repeats(one, "cd") == 0
    assert one.unconfirmed.before == []


@given(
    events=st.lists(st.integers(0, 2), max_size=60),
    prefetch=st.integers(1, 12),
    data=st.data(),
)
def test_each_event_is_taken_in_once_wherever_the_reader_is_killed(
    events: list[int], prefetch: int, data: st.DataObject
) -> None:
    """A broker that sends again what was not acknowledged; acknowledgements get lost, but never two that are confirmed.

    Each event differs from the others: what equal ones can do is told in the tests above.
    """
    stream = [f"{number}-{event}".encode() for number, event in enumerate(events)]
    one = Seen()
    taken: list[bytes] = []
    acknowledged = 0  # what the broker knows of
    sent = 0  # what it has sent at least once
    while acknowledged < len(stream):
        position = acknowledged
        pending: list[int] = []  # acknowledgements under way
        for _ in range(data.draw(st.integers(1, 4))):
            batch = stream[position : position + data.draw(st.integers(1, prefetch))]
            if not batch:
                break
            redelivered = max(0, min(sent - position, len(batch)))
            if data.draw(st.booleans(), label="killed before the commit"):
                sent = max(sent, position + len(batch))
                break
            taken += batch[one.take(batch, redelivered) :]
            position += len(batch)
            sent = max(sent, position)
            pending.append(position)
            if len(pending) > 1:
                acknowledged = pending.pop(0)
        else:
            if data.draw(st.booleans(), label="the last acknowledgement came through"):
                acknowledged = pending.pop() if pending else acknowledged
        one = Seen(one.unconfirmed)
    assert taken == stream
