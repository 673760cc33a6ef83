"""Exactly once: recognising trace events that come again because their acknowledgement did not reach the broker.

An event is acknowledged after its commit, so after a crash or a cut connection the broker sends again what was
committed but not acknowledged, flagged as redelivered, in its old order. Trace events have no id. What is kept of those
that may come again is a digest of each, in the same transaction as the events themselves.

That a digest is known is not enough: a message that its consumer gives back again and again, or a publisher that
repeats itself, makes equal events, some of them committed and some new. But an acknowledgement is for a whole batch,
and each is confirmed before the next but one batch is committed. So what comes again begins with one of the last two
batches, or with none of them, and can be laid against these three possibilities.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SIZE = 8
"""Bytes of a digest."""

_SURE = 8  # equal events in a row that are no coincidence; hot loops of one message aside


class Unconfirmed(NamedTuple):
    """The digests of what was committed and may come again, in the order in which it would."""

    before: Sequence[bytes] = ()  # the batch before the last one
    last: Sequence[bytes] = ()  # the last batch
    rest: Sequence[bytes] = ()  # of an earlier connection, and not come again yet


class Seen:
    """What one vhost's events have to be compared with when they are flagged as redelivered."""

    def __init__(self, unconfirmed: Unconfirmed | None = None) -> None:
        """Begin with what the ledger has; it may all come again."""
        unconfirmed = unconfirmed or Unconfirmed()
        self._before = list(unconfirmed.before)
        self._last = list(unconfirmed.last)
        self._rest = deque(unconfirmed.rest)
        self._connected = False  # whether events have come over this connection

    @property
    def unconfirmed(self) -> Unconfirmed:
        """What may come again after the next commit."""
        return Unconfirmed(self._before, self._last, tuple(self._rest))

    def reconnect(self) -> None:
        """Take in that a connection is gone: what was not confirmed may come again."""
        self._connected = False

    def settle(self) -> None:
        """Take in that every acknowledgement was confirmed: nothing comes again."""
        self._before, self._last, self._rest = [], [], deque()

    def take(self, batch: Sequence[bytes], redelivered: int) -> int:
        """Take in the next batch; return how many of its events, from the first on, were committed before.

        `batch` are the digests of its events; so many, from the first on, are flagged as redelivered.
        """
        if not batch:
            return 0
        again = batch[:redelivered]
        if not self._connected:
            self._connected = True
            self._rest = self._place(again, whole=redelivered < len(batch))
            self._before, self._last = [], []
        repeats = 0
        while repeats < redelivered and self._rest and self._rest[0] == again[repeats]:
            self._rest.popleft()
            repeats += 1
        if repeats < len(batch):
            self._rest.clear()  # what follows something new is new
        self._before, self._last = self._last, list(batch)
        return repeats

    def _place(self, again: Sequence[bytes], *, whole: bool) -> deque[bytes]:
        """Return the end of what is unconfirmed with which the redelivered events begin; empty when they are all new.

        `whole`: they are all that come again; if not, more may follow them.
        """
        flat = [*self._before, *self._last, *self._rest]
        batches = (0, len(self._before), len(self._before) + len(self._last))
        # a trace queue that is full drops its oldest: then the beginning is missing, of whatever batch it was
        cut_short = range(len(flat) - _SURE + 1) if len(again) >= _SURE else ()
        for start in _distinct(batches, cut_short):
            length = len(flat) - start
            if length and (length <= len(again) or not whole) and flat[start : start + len(again)] == again[:length]:
                return deque(flat[start:])
        return deque()


def _distinct(*starts: Iterable[int]) -> Iterable[int]:
    return dict.fromkeys(start for some in starts for start in some)
