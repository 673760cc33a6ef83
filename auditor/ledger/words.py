"""The numbers that stand for states and reasons, and how numbers below `FIRST_NAME` are spent.

They are rows of `names` like every other interned text, but with fixed numbers, so that an index can be limited to some
states. States are numbered from the best to the worst: the worst state of an order is the highest number.
"""

from __future__ import annotations

from auditor.core.hops import AGAINST, OPEN, Reason, State

STATES: dict[str, int] = {
    State.DELIVERED.value: 1,
    State.IN_FLIGHT.value: 2,
    State.LATE.value: 3,
    State.UNKNOWN.value: 4,
    State.STUCK.value: 5,
    State.UNROUTABLE.value: 6,
    State.DEAD_LETTERED.value: 7,
    State.LOST.value: 8,
}
"""State to number; 1 to 15 are kept for states."""

REASONS: dict[str, int] = {
    Reason.WAITING.value: 16,
    Reason.NO_CONSUMER.value: 17,
    Reason.QUEUE_EMPTY.value: 18,
    Reason.OVERTAKEN.value: 19,
    Reason.QUEUE_MISSING.value: 20,
    Reason.EXPIRED.value: 21,
    Reason.REJECTED.value: 22,
    Reason.MAXLEN.value: 23,
    Reason.DELIVERY_LIMIT.value: 24,
    Reason.NO_QUEUE.value: 25,
    Reason.BLIND.value: 26,
    Reason.OVERFLOW.value: 27,
    Reason.QUEUE_GONE.value: 28,
    Reason.DELAYED.value: 29,
    Reason.TRANSACTION.value: 30,
}
"""Reason to number; 16 to 62 are kept for reasons."""

EMPTY_NAME = 63
"""The empty name: the default exchange, and the queue of an unroutable message."""

FIRST_NAME = 64
"""From here on `names` is filled as names are met."""

STATE_OF: dict[int, State] = {number: State(word) for word, number in STATES.items()}
REASON_OF: dict[int | None, Reason | None] = {None: None} | {number: Reason(word) for word, number in REASONS.items()}

OPEN_SQL = ", ".join(str(STATES[state]) for state in sorted(OPEN, key=lambda state: STATES[state]))
AGAINST_SQL = ", ".join(str(STATES[state]) for state in sorted(AGAINST, key=lambda state: STATES[state]))
HEALTHY_SQL = f"{STATES[State.DELIVERED]}, {STATES[State.LATE]}"
