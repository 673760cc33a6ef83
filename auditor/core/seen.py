"""Exactly once: recognising trace events that come again because their acknowledgement did not reach the broker.

An event is acknowledged after its commit, so after a crash or a cut connection the broker sends again what was
committed but not acknowledged, flagged as redelivered. Trace events have no id. What is kept is a digest of each of the
newest events, in the same transaction as the events themselves, for at least as many as can be without acknowledgement
at one time.

Digests are counted, not just looked up: the same message published twice makes two equal events, and both count.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

SIZE = 8
"""Bytes of a digest."""


class Seen:
    """The newest committed events of one vhost."""

    def __init__(self, window: int, digests: Iterable[bytes] = ()) -> None:
        """Remember the newest `window` digests; begin with those of the ledger, oldest first."""
        self._newest: deque[bytes] = deque(digests, maxlen=window)
        self._expected: Counter[bytes] = Counter(self._newest)

    def reconnect(self) -> None:
        """Take in that a connection is gone: whatever is remembered may come again, once."""
        self._expected = Counter(self._newest)

    def again(self, digest: bytes) -> bool:
        """Whether a redelivered event was committed before; each committed event is recognised once a connection."""
        left = self._expected.get(digest, 0)
        if not left:
            return False
        self._expected[digest] = left - 1
        return True

    def add(self, digests: Iterable[bytes]) -> None:
        """Remember events that are being committed."""
        self._newest.extend(digests)
