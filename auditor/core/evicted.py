"""Evicted hops: open, and only in the ledger, because memory holds no more of them.

For each queue is kept how many there are, and a message before which none of them was published (`low`). That is enough
to serve a queue that is worked off first in, first out from memory: an open hop that is older than `low` comes first,
whatever the ledger has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from auditor.core.changes import StoredHop

PAGE = 2000
"""Open hops that are read from the ledger in one go: some 20 ms."""

NEVER = 1 << 62
"""A message that there will never be."""

_MAX_EPOCHS = 10_000  # canaries whose place among the messages is remembered exactly: some three hours, 2 MB

_MAX_REPUBLISHED = 10_000  # messages that were published with an `x-death`; of older ones it is forgotten, 1 MB

Place = tuple[int, int]
"""Message and number of a hop: the order in which the ledger has them."""

START: Place = (0, 0)


class Stored(Protocol):
    """Reads the hops that the ledger has of one vhost."""

    def recall(self, identity: int, queue: str) -> list[StoredHop]:
        """Return the newest hops of an identity to a queue, oldest first; a bounded number."""

    def recall_open(self, identity: int, queue: str, since: int) -> list[StoredHop]:
        """Return the oldest open ones among them from message `since` on, oldest first; a bounded number."""

    def open_page(self, after: Place, limit: int) -> tuple[list[StoredHop], Place | None]:
        """Return the next open hops after a place, oldest first, and the place to go on from; None at the end."""


class OpenHops(NamedTuple):
    """The open hops to one queue that are only in the ledger."""

    queue: str
    hops: int
    low: int  # no message of them is older


class Evicted:
    """Counts the evicted hops of each queue."""

    def __init__(self) -> None:
        self._queues: dict[str, OpenHops] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    def restore(self, queues: Iterable[OpenHops]) -> None:
        """Take in those that a start leaves in the ledger."""
        for queue in queues:
            self._queues[queue.queue] = queue
            self._count += queue.hops

    def of(self, queue: str) -> int:
        """How many there are of a queue."""
        found = self._queues.get(queue)
        return 0 if found is None else found.hops

    def low(self, queue: str) -> int:
        """Give a message before which a queue has none; NEVER where it has none at all."""
        found = self._queues.get(queue)
        return NEVER if found is None else found.low

    def add(self, queue: str, message: int) -> None:
        """Take in that a hop was evicted."""
        found = self._queues.get(queue)
        hops, low = (0, message) if found is None else (found.hops, found.low)
        self._queues[queue] = OpenHops(queue, hops + 1, min(low, message))
        self._count += 1

    def remove(self, queue: str) -> None:
        """Take in that a hop was admitted again."""
        found = self._queues[queue]
        if found.hops > 1:
            self._queues[queue] = found._replace(hops=found.hops - 1)
        else:
            del self._queues[queue]
        self._count -= 1

    def none_before(self, queue: str, message: int) -> None:
        """Take in that all that a queue had before a message were admitted."""
        found = self._queues.get(queue)
        if found is not None:
            self._queues[queue] = found._replace(low=message)


class Unstored:
    """What the ledger does not keep of this run's messages (`auditor.core.book.Message`), for hops that come back."""

    def __init__(self) -> None:
        self._epochs: list[tuple[int, int | None]] = [(0, None)]  # the first message that had it, epoch
        self._deaths: dict[int, int] = {}  # message -> fingerprint; the oldest first, without the usual 0
        self._deaths_since = NEVER  # the first message of which that is known

    def note(self, message: int, epoch: int | None, deaths: int | None) -> None:
        """Take in what is known of a message; older ones than the newest are known already."""
        newest, last = self._epochs[-1]
        if epoch != last and message > newest:
            self._epochs.append((message, epoch))
            if len(self._epochs) > _MAX_EPOCHS:
                # the older half by every other one: an epoch before the true one can only withhold claims
                del self._epochs[1 : _MAX_EPOCHS // 2 : 2]
        if deaths is None:
            return
        if self._deaths_since == NEVER:
            self._deaths_since = message
        if deaths and message >= self._deaths_since:
            self._deaths[message] = deaths
            if len(self._deaths) > _MAX_REPUBLISHED:
                self._deaths_since = next(iter(self._deaths)) + 1
                del self._deaths[self._deaths_since - 1]

    def epoch(self, message: int) -> int | None:
        """Give a message's epoch, or one before it; None for a message of an earlier run."""
        return self._epochs[bisect_right(self._epochs, message, key=_first) - 1][1]

    def deaths(self, message: int) -> int | None:
        """Give the fingerprint of the deaths that a message was published with; None where it is not known."""
        return None if message < self._deaths_since else self._deaths.get(message, 0)


def _first(entry: tuple[int, int | None]) -> int:
    return entry[0]
