"""The book: every hop that the matcher has at hand, and what has changed since the last commit.

Open hops stay here until they are closed. Closed ones stay until the batch is committed, because the ledger does not
know of the change before that; afterwards they are found again through `recall`, a function that reads the ledger.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from auditor.core.changes import HopRow, StoredHop
from auditor.core.flows import Flow
from auditor.core.hops import OPEN, Reason, State, check_move


class Recall(Protocol):
    """Reads the stored hops of one identity to one queue, oldest first."""

    def __call__(self, identity: int, queue: str) -> list[StoredHop]: ...


class Message:
    """What the hops of one publish share."""

    __slots__ = ("epoch", "exchange", "hops", "id", "identity", "priority", "published_at")

    def __init__(
        self, id: int, identity: int, exchange: str, priority: int, published_at: int, epoch: int | None, hops: int
    ) -> None:
        self.id = id
        self.identity = identity
        self.exchange = exchange
        self.priority = priority
        self.published_at = published_at  # when its publish was read: it was certainly not published later
        self.epoch = epoch  # the watermark at that time: nor was it published before; None where that is not known
        self.hops = hops  # how many hops it has


class Hop:
    """A message on its way to one queue."""

    __slots__ = ("attempts", "deadline", "flow", "judged_at", "message", "number", "queue", "reason", "state", "wait")

    def __init__(
        self,
        message: Message,
        number: int,
        queue: str,
        flow: Flow,
        deadline: int,
        state: State = State.IN_FLIGHT,
        reason: Reason | None = None,
    ) -> None:
        self.message = message
        self.number = number
        self.queue = queue
        self.flow = flow
        self.deadline = deadline  # microseconds after the publish
        self.state = state
        self.reason = reason
        self.wait: int | None = None
        self.attempts = 0
        self.judged_at: int | None = None

    @property
    def deadline_at(self) -> int:
        """When the hop's deadline passes, microseconds since the epoch."""
        return self.message.published_at + self.deadline

    def __repr__(self) -> str:
        return f"{self.message.id}/{self.number} to {self.queue!r}"


class Book:
    """Finds hops by identity and queue, and collects the rows of those that changed."""

    def __init__(self, recall: Recall, flow_of: Callable[[StoredHop], Flow]) -> None:
        self._recall = recall
        self._flow_of = flow_of
        # queue -> identity -> hop, or hops of equal messages, oldest first: there may be a million open, so the usual
        # one has no list around it
        self._open: dict[str, dict[int, Hop | list[Hop]]] = {}
        self._open_count = 0
        # since the last commit:
        self._closed: dict[tuple[int, str], list[Hop]] = {}  # closed or recalled, oldest first
        self._recalled: set[tuple[int, str]] = set()
        self._recalled_messages: dict[int, Message] = {}
        self._changed: dict[Hop, None] = {}

    def __len__(self) -> int:
        """How many hops are open."""
        return self._open_count

    def add(self, hop: Hop) -> None:
        """Take a new hop in."""
        self._changed[hop] = None
        self._file(hop)

    def restore(self, stored: Iterable[StoredHop]) -> list[Hop]:
        """Take the ledger's open hops in, after a start."""
        messages: dict[int, Message] = {}
        hops = []
        for row in stored:
            hop = self._from(row, messages)
            self._file(hop)
            hops.append(hop)
        return hops

    def open_hops(self, identity: int, queue: str) -> Sequence[Hop]:
        """Return the open hops of an identity to a queue, first in first."""
        hops = self._open.get(queue)
        found = None if hops is None else hops.get(identity)
        if found is None:
            return ()
        return found if isinstance(found, list) else (found,)

    def closed_hops(self, identity: int, queue: str) -> list[Hop]:
        """Return its closed hops, oldest first; asks the ledger once for each batch and key."""
        key = (identity, queue)
        if key not in self._recalled:
            self._recalled.add(key)
            uncommitted = (*self.open_hops(identity, queue), *self._closed.get(key, ()))
            at_hand = {(hop.message.id, hop.number) for hop in uncommitted}
            recalled = [
                self._from(row, self._recalled_messages)
                for row in self._recall(identity, queue)
                if (row.message, row.number) not in at_hand
            ]
            self._closed[key] = sorted([*recalled, *self._closed.get(key, ())], key=age)
        return self._closed[key]

    def next_number(self, source: Hop) -> int:
        """Return the number of a further hop of the same message, and count it.

        The message may be at hand twice, once with an open hop and once recalled with a closed one, so its own count is
        not enough: the ledger's and that of the uncommitted changes are looked at too.
        """
        message = source.message
        stored = (row.hops for row in self._recall(message.identity, source.queue) if row.message == message.id)
        uncommitted = (hop.number + 1 for hop in self._changed if hop.message.id == message.id)
        number = max(message.hops, *stored, *uncommitted)
        message.hops = number + 1
        return number

    def change(self, hop: Hop, state: State, reason: Reason | None, *, event: str) -> None:
        """Move a hop to another state; IllegalMove unless the state table allows it."""
        check_move(hop.state, state, event, hop)
        was_open = hop.state in OPEN
        hop.state = state
        hop.reason = reason
        self._changed[hop] = None
        if was_open and state not in OPEN:
            self._close(hop)

    def touch(self, hop: Hop) -> None:
        """Have a hop written that changed in something else than its state."""
        self._changed[hop] = None

    def take(self) -> list[HopRow]:
        """Return one row for each hop that changed, and forget the closed ones: the ledger has them from here on."""
        rows = [
            HopRow(
                hop.message.id,
                hop.number,
                hop.queue,
                hop.flow.name,
                hop.state,
                hop.reason,
                hop.deadline,
                hop.wait,
                hop.attempts,
                hop.judged_at,
            )
            for hop in self._changed
        ]
        self._changed.clear()
        self._closed.clear()
        self._recalled.clear()
        self._recalled_messages.clear()
        return rows

    def _file(self, hop: Hop) -> None:
        if hop.state not in OPEN:
            self._file_closed(hop)
            return
        identity = hop.message.identity
        hops = self._open.setdefault(hop.queue, {})
        equal = hops.setdefault(identity, hop)
        if isinstance(equal, list):
            equal.append(hop)
        elif equal is not hop:
            hops[identity] = [equal, hop]
        self._open_count += 1

    def _file_closed(self, hop: Hop) -> None:
        insort(self._closed.setdefault((hop.message.identity, hop.queue), []), hop, key=age)

    def _close(self, hop: Hop) -> None:
        identity = hop.message.identity
        hops = self._open[hop.queue]
        equal = hops[identity]
        if isinstance(equal, list) and len(equal) > 1:
            equal.remove(hop)  # nearly always the first
        else:
            del hops[identity]
            if not hops:
                del self._open[hop.queue]
        self._open_count -= 1
        self._file_closed(hop)

    def _from(self, row: StoredHop, messages: dict[int, Message]) -> Hop:
        message = messages.get(row.message)
        if message is None:
            # the epoch is not stored; without it a message is no evidence against others
            message = messages[row.message] = Message(
                row.message, row.identity, row.exchange, row.priority, row.published_at, None, row.hops
            )
        hop = Hop(message, row.number, row.queue, self._flow_of(row), row.deadline, row.state, row.reason)
        hop.wait, hop.attempts = row.wait, row.attempts
        return hop


def age(hop: Hop) -> tuple[int, int]:
    """Sort key: the ledger's order, so that it does not matter in which batch a hop was closed."""
    return hop.message.id, hop.number
