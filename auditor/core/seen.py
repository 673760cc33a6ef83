"""Exactly once: recognising trace events that come again because their acknowledgement did not reach the broker.

An event is acknowledged after its commit, so after a crash or a cut connection the broker sends again what was
committed but not acknowledged, flagged as redelivered. Trace events have no id. What is kept is a digest of each of the
newest events, in the same transaction as the events themselves, for at least as many as can be without acknowledgement
at one time.

Equal events are common: a message that its consumer gives back is delivered again, a publisher repeats itself. So it is
not enough that a digest is known, it has to come in its place: what was not acknowledged comes again in the order in
which it came first, so it begins with the end of what was committed, and what was never committed follows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

SIZE = 8
"""Bytes of a digest."""


class Seen:
    """The newest committed events of one vhost."""

    def __init__(self, window: int, digests: Iterable[bytes] = ()) -> None:
        """Remember the newest `window` digests; begin with those of the ledger, oldest first."""
        self._newest: deque[bytes] = deque(digests, maxlen=window)
        self._expected: deque[bytes] | None = None  # what comes again next, in order; None: not known yet

    def reconnect(self) -> None:
        """Take in that a connection is gone: the end of what is remembered may come again."""
        self._expected = None

    def repeats(self, digests: Sequence[bytes], redelivered: int) -> int:
        """Return how many events, from the first on, were committed before.

        `digests` are those of the next events to take in; so many, from the first on, are flagged as redelivered.
        """
        if not digests:
            return 0
        again = digests[:redelivered]
        if self._expected is None:
            self._expected = self._place(again, whole=redelivered < len(digests))
        count = 0
        while count < redelivered and self._expected and self._expected[0] == again[count]:
            self._expected.popleft()
            count += 1
        if count < len(digests):
            self._expected.clear()  # all that follows is new
        return count

    def add(self, digests: Iterable[bytes]) -> None:
        """Remember events that are being committed."""
        self._newest.extend(digests)

    def _place(self, again: Sequence[bytes], *, whole: bool) -> deque[bytes]:
        """Return the end of what is remembered with which redelivered events begin; empty when they are all new.

        `whole`: they are all that come again; if not, they may be the beginning of a longer end.
        """
        newest = list(self._newest)
        short = max(0, len(newest) - len(again))
        # ends that are here as a whole come first, the longest of them before all others
        for start in (*range(short, len(newest)), *(() if whole else range(short))):
            if newest[start : start + len(again)] == again[: len(newest) - start]:
                return deque(newest[start:])
        return deque()
