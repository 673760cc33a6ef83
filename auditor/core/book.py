"""The book: every hop that the matcher has at hand, and what has changed since the last commit.

Open hops stay here until they are closed, or evicted because there are too many. Closed ones stay until the batch is
committed, because the ledger does not know of the change before that. What is no longer here is found again through
`Stored`, which reads the ledger.

When a delivery finds an evicted hop (`auditor.core.evicted`), those that follow it in its queue are admitted with it, a
page of them at most once a batch: a queue that is being worked off will deliver them next.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice

from auditor.core.changes import HopRow, Move, StoredHop
from auditor.core.evicted import NEVER, PAGE, Evicted, OpenHops, Place, Stored, Unstored
from auditor.core.flows import Flow
from auditor.core.hops import OPEN, Reason, State, check_move

_new = tuple.__new__  # makes a named tuple in half the time that calling its class takes


class Message:
    """What the hops of one publish share."""

    __slots__ = ("deaths", "epoch", "exchange", "hops", "id", "identity", "priority", "published_at")

    def __init__(
        self,
        id: int,
        identity: int,
        exchange: str,
        priority: int,
        published_at: int,
        epoch: int | None,
        deaths: int | None,
        hops: int,
    ) -> None:
        self.id = id
        self.identity = identity
        self.exchange = exchange
        self.priority = priority
        self.published_at = published_at  # when its publish was read: it was certainly not published later
        self.epoch = epoch  # the watermark at that time: nor was it published before; None where that is not known
        self.deaths = deaths  # fingerprint of those it was published with, usually 0; None where that is not known
        self.hops = hops  # how many hops it has

    def may_be(self, exchange: str, deaths: int) -> bool:
        """Whether a delivery with these deaths, last published to this exchange, can be of this very publish."""
        return exchange == self.exchange if self.deaths is None else deaths == self.deaths


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

    @property
    def delayed(self) -> bool:
        """Whether it is to a place where its message is held back on purpose (`auditor.core.delays`)."""
        return not self.queue or self.flow.delay_queue(self.queue)

    def __repr__(self) -> str:
        return f"{self.message.id}/{self.number} to {self.queue!r}"


class Book:
    """Finds hops by identity and queue, and collects the rows of those that changed."""

    def __init__(self, stored: Stored, flow_of: Callable[[StoredHop], Flow]) -> None:
        self._stored = stored
        self._flow_of = flow_of
        # queue -> identity -> hop, or hops of equal messages, oldest first: there may be many open, so the usual one
        # has no list around it
        self._open: dict[str, dict[int, Hop | list[Hop]]] = {}
        self._at_hand = 0  # how many those are
        self._evicted = Evicted()
        self._unstored = Unstored()
        # since the last commit:
        self._closed: dict[tuple[int, str], list[Hop]] = {}  # closed or recalled, oldest first
        self._recalled: set[tuple[int, str]] = set()
        self._recalled_messages: dict[int, Message] = {}
        self._sought: dict[tuple[int, str], int] = {}  # of these none is evicted that is older than the message
        self._followed = False  # whether a page was admitted
        self._numbers: dict[int, int] = {}  # message -> number of its next further hop
        self._moved: set[Place] = set()  # hops that the ledger has to another queue
        self._changed: dict[Hop, None] = {}
        self._moves: list[Move] = []

    def __len__(self) -> int:
        """How many hops are open, evicted ones included."""
        return self._at_hand + len(self._evicted)

    @property
    def at_hand(self) -> int:
        """How many open hops are in memory."""
        return self._at_hand

    def add(self, hop: Hop) -> None:
        """Take a new hop in."""
        self._changed[hop] = None
        self._moves.append((hop.flow.name, hop.queue, None, hop.state, hop.reason, None))
        self._file(hop)
        self._unstored.note(hop.message.id, hop.message.epoch, hop.message.deaths)

    def restore(self, stored: Iterable[StoredHop], evicted: Iterable[OpenHops]) -> list[Hop]:
        """Take the ledger's open hops in, after a start; `evicted` are those that stay there."""
        messages: dict[int, Message] = {}
        hops = [self._from(row, messages) for row in stored]
        for hop in hops:
            self._file(hop)
        self._evicted.restore(evicted)
        return hops

    def open_hops(self, identity: int, queue: str) -> Sequence[Hop]:
        """Return the open hops of an identity to a queue that are in memory, first in first."""
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
            recalled = [
                self._from(row, self._recalled_messages)
                for row in self._stored.recall(identity, queue)
                if row.state not in OPEN and not self._knows(row)
            ]
            self._closed[key] = sorted([*recalled, *self._closed.get(key, ())], key=age)
        return self._closed[key]

    # evicted hops

    def evicted(self, queue: str | None = None) -> int:
        """How many open hops, to a queue or in all, are only in the ledger."""
        return len(self._evicted) if queue is None else self._evicted.of(queue)

    def readmit(self, identity: int, queue: str) -> list[Hop]:
        """Admit the evicted hops of an identity to a queue that may come before those in memory, and perhaps others.

        Returns all that were admitted: usually none, at no cost.
        """
        low = self._evicted.low(queue)
        if low == NEVER:
            return []
        key = (identity, queue)
        since = max(low, self._sought.get(key, 0))
        at_hand = self.open_hops(identity, queue)
        if since == NEVER or (at_hand and at_hand[0].message.id < since):
            return []
        rows = self._stored.recall_open(identity, queue, since)
        self._sought[key] = rows[-1].message + 1 if rows else NEVER
        admitted = self._admit_rows(rows)
        if admitted and self._evicted.of(queue) and not self._followed:
            self._followed = True
            admitted += self._admit_following(queue)
        return admitted

    def _admit_following(self, queue: str) -> list[Hop]:
        """Admit a queue's oldest evicted hops: a queue that is being worked off will deliver them next."""
        rows, place = self._stored.open_page((self._evicted.low(queue), -1), PAGE)
        admitted = self._admit_rows([row for row in rows if row.queue == queue])
        self._evicted.none_before(queue, NEVER if place is None else place[0])
        return admitted

    def _admit_rows(self, rows: Iterable[StoredHop]) -> list[Hop]:
        messages: dict[int, Message] = {}
        hops = [self._from(row, messages) for row in rows if not self._knows(row)]
        for hop in hops:
            self.admit(hop)
        return hops

    def evicted_page(self, after: Place) -> tuple[list[Hop], Place | None]:
        """Read the next evicted hops after a place, and the place to go on from; None at the end.

        They stay evicted: who changes one admits it first.
        """
        rows, place = self._stored.open_page(after, PAGE)
        messages: dict[int, Message] = {}
        return [self._from(row, messages) for row in rows if not self._knows(row)], place

    def admit(self, hop: Hop) -> None:
        """Take an evicted hop back in."""
        self._evicted.remove(hop.queue)
        self._file(hop)

    def evict(self, hop: Hop) -> None:
        """Leave an open hop to the ledger, which must have it as it is."""
        self._unfile(hop)
        self._evicted.add(hop.queue, hop.message.id)

    def expected(self, queue: str, until: int) -> int:
        """Return how many open hops to a queue there are that were published by then, and evicted ones."""
        hops = chain.from_iterable(map(_newest_first, self._open.get(queue, {}).values()))
        return sum(1 for hop in hops if hop.message.published_at <= until) + self._evicted.of(queue)

    def longest(self, count: int) -> list[Hop]:
        """Return so many open hops, or all there are: the newest of the queue with most of them, then of the next.

        Where a queue is worked off, its oldest will be needed first; and a long queue is not one of those where a hop
        is delivered a moment after its publish.
        """
        found: list[Hop] = []
        for hops in sorted(self._open.values(), key=_size, reverse=True):
            newest = (hop for equal in reversed(hops.values()) for hop in _newest_first(equal))
            found += islice(newest, count - len(found))
            if len(found) >= count:
                break
        return found

    # changes

    def next_number(self, source: Hop) -> int:
        """Return the number of a further hop of the same message, and count it.

        The message may be at hand several times, once with an open hop and once recalled with a closed one, so its own
        count is not enough: the ledger's and that of the uncommitted further hops are looked at too.
        """
        message = source.message
        number = self._numbers.get(message.id)
        if number is None:
            stored = (
                row.hops for row in self._stored.recall(message.identity, source.queue) if row.message == message.id
            )
            number = max((message.hops, *stored))
        number = max(number, message.hops)
        self._numbers[message.id] = message.hops = number + 1
        return number

    def change(self, hop: Hop, state: State, reason: Reason | None, *, event: str) -> None:
        """Move a hop to another state; IllegalMove unless the state table allows it."""
        check_move(hop.state, state, event, hop)
        self._moves.append((hop.flow.name, hop.queue, hop.state, state, reason, hop.wait))
        was_open = hop.state in OPEN
        hop.state = state
        hop.reason = reason
        self._changed[hop] = None
        if was_open and state not in OPEN:
            self._close(hop)

    def move(self, hop: Hop, queue: str, flow: Flow) -> None:
        """Have a hop that is at hand, its message having been held back, go to another queue after all."""
        if hop.state in OPEN:
            self._unfile(hop)
        else:
            self._closed[hop.message.identity, hop.queue].remove(hop)
        hop.queue = queue
        hop.deadline += flow.deadline - hop.flow.deadline
        hop.flow = flow
        self._moved.add(age(hop))
        self._changed[hop] = None
        self._file(hop)

    def touch(self, hop: Hop) -> None:
        """Have a hop written that changed in something else than its state."""
        self._changed[hop] = None

    def take(self) -> list[HopRow]:
        """Return one row for each hop that changed, and forget the closed ones: the ledger has them from here on."""
        rows = [
            _new(
                HopRow,
                (
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
                ),
            )
            for hop in self._changed
        ]
        self._changed.clear()
        self._closed.clear()
        self._recalled.clear()
        self._recalled_messages.clear()
        self._sought.clear()
        self._followed = False
        self._numbers.clear()
        self._moved.clear()
        return rows

    def take_moves(self) -> list[Move]:
        """Return the moves since the last call."""
        moves, self._moves = self._moves, []
        return moves

    def _file(self, hop: Hop) -> None:
        if hop.state not in OPEN:
            self._file_closed(hop)
            return
        identity = hop.message.identity
        hops = self._open.setdefault(hop.queue, {})
        equal = hops.setdefault(identity, hop)
        if equal is not hop:
            if not isinstance(equal, list):
                equal = hops[identity] = [equal]
            if age(hop) < age(equal[-1]):  # readmitted
                insort(equal, hop, key=age)
            else:
                equal.append(hop)
        self._at_hand += 1

    def _file_closed(self, hop: Hop) -> None:
        insort(self._closed.setdefault((hop.message.identity, hop.queue), []), hop, key=age)

    def _close(self, hop: Hop) -> None:
        self._unfile(hop)
        self._file_closed(hop)

    def _unfile(self, hop: Hop) -> None:
        identity = hop.message.identity
        hops = self._open[hop.queue]
        equal = hops[identity]
        if isinstance(equal, list) and len(equal) > 1:
            if equal[-1] is hop:
                equal.pop()
            else:
                equal.remove(hop)  # nearly always the first
        else:
            del hops[identity]
            if not hops:
                del self._open[hop.queue]
        self._at_hand -= 1

    def _knows(self, row: StoredHop) -> bool:
        """Whether a stored hop is at hand, open or closed; then the ledger may be behind."""
        place = (row.message, row.number)
        if place in self._moved:
            return True
        hops = (*self.open_hops(row.identity, row.queue), *self._closed.get((row.identity, row.queue), ()))
        return any(age(hop) == place for hop in hops)

    def _from(self, row: StoredHop, messages: dict[int, Message]) -> Hop:
        message = messages.get(row.message)
        if message is None:
            # without its epoch, as of an earlier run, a message is no evidence against others
            epoch, deaths = self._unstored.epoch(row.message), self._unstored.deaths(row.message)
            message = messages[row.message] = Message(
                row.message, row.identity, row.exchange, row.priority, row.published_at, epoch, deaths, row.hops
            )
        hop = Hop(message, row.number, row.queue, self._flow_of(row), row.deadline, row.state, row.reason)
        hop.wait, hop.attempts = row.wait, row.attempts
        return hop


def age(hop: Hop) -> tuple[int, int]:
    """Sort key: the ledger's order, so that it does not matter in which batch a hop was closed."""
    return hop.message.id, hop.number


def _size(hops: Mapping[int, Hop | list[Hop]]) -> int:
    return sum(len(found) if isinstance(found, list) else 1 for found in hops.values())


def _newest_first(found: Hop | list[Hop]) -> Iterable[Hop]:
    return reversed(found) if isinstance(found, list) else (found,)
