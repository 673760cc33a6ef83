"""The states of a hop, the reasons, and every legal move between states.

All moves live here and nowhere else; the diagram in docs/states.md is printed from `MOVES`.
"""

from __future__ import annotations

from enum import StrEnum

from auditor.core.errors import IllegalMove


class State(StrEnum):
    """What is claimed of a hop."""

    IN_FLIGHT = "in_flight"  # published; its deadline has not passed
    DELIVERED = "delivered"  # given to a consumer within the deadline
    LATE = "late"  # given to a consumer after the deadline
    STUCK = "stuck"  # deadline passed; the queue still holds it, as far as can be seen
    LOST = "lost"  # deadline passed; no longer in the queue, never delivered
    DEAD_LETTERED = "dead_lettered"  # the broker moved it away, seen in a later delivery's x-death
    UNROUTABLE = "unroutable"  # the broker routed it to no queue
    UNKNOWN = "unknown"  # a gap covers its flight, or the source cannot tell; nothing is claimed


class Reason(StrEnum):
    """Why a hop is in its state."""

    WAITING = "waiting"  # stuck: the queue has consumers
    NO_CONSUMER = "no_consumer"  # stuck: the queue has none
    QUEUE_EMPTY = "queue_empty"  # lost: the queue holds nothing
    OVERTAKEN = "overtaken"  # lost: a later message of the same queue and priority was delivered
    QUEUE_MISSING = "queue_missing"  # lost: the queue does not exist
    EXPIRED = "expired"  # dead-lettered: its time to live ran out
    REJECTED = "rejected"  # dead-lettered: a consumer refused it
    MAXLEN = "maxlen"  # dead-lettered: the queue was full
    DELIVERY_LIMIT = "delivery_limit"  # dead-lettered: delivered too often
    NO_QUEUE = "no_queue"  # unroutable: no binding matched
    BLIND = "blind"  # unknown: no trace events could be seen
    OVERFLOW = "overflow"  # unknown: the trace queue dropped events
    QUEUE_GONE = "queue_gone"  # unknown: the trace queue was not there
    DELAYED = "delayed"  # unknown: it was put off, and has not been seen in any queue since
    TRANSACTION = "transaction"  # unknown: it may have been rolled back


AGAINST = frozenset({State.STUCK, State.LOST, State.DEAD_LETTERED, State.UNROUTABLE})
"""The verdicts against a hop: what the `lost` view lists and what alerts are about."""

OPEN = frozenset({State.IN_FLIGHT, State.STUCK})
"""The states of which more may be learned from the queue."""

MOVES: dict[State, frozenset[State]] = {
    State.IN_FLIGHT: frozenset(
        {State.DELIVERED, State.LATE, State.STUCK, State.LOST, State.DEAD_LETTERED, State.UNKNOWN}
    ),
    # a queue that is purged or deleted later turns "still there" into "gone"; a gap turns it into "cannot say"
    State.STUCK: frozenset({State.STUCK, State.LATE, State.LOST, State.DEAD_LETTERED, State.UNKNOWN}),
    State.LOST: frozenset({State.LATE, State.DEAD_LETTERED}),
    State.UNKNOWN: frozenset({State.LATE, State.DEAD_LETTERED}),
    # rejecting comes after delivering
    State.DELIVERED: frozenset({State.DEAD_LETTERED}),
    State.LATE: frozenset({State.DEAD_LETTERED}),
    State.DEAD_LETTERED: frozenset(),
    State.UNROUTABLE: frozenset(),
}


def check_move(before: State, after: State, event: str, hop: object) -> None:
    """Raise IllegalMove, naming event, states and hop, unless the table allows the move."""
    if after not in MOVES[before]:
        raise IllegalMove(f"{event} cannot move hop {hop} from {before} to {after}")
