"""The watermark: how far the audit has seen.

The auditor publishes a small message of its own, the canary, every second. The trace event of a canary comes back
through the same trace queue as everybody else's, so once it is here, everything that was published before it is here
too. The watermark is the publish time of the newest canary that came back. It stands still while the auditor is behind
or blind, and nobody is accused meanwhile.
"""

from __future__ import annotations


class Watermark:
    """Follows the canaries of one vhost. Times are microseconds since the epoch."""

    def __init__(self, margin: int, at: int | None = None) -> None:
        """Start at `at`, the watermark of the ledger; `margin` is two canaries long.

        The margin covers events of other channels that were published before the canary and overtook it on their way:
        the broker orders events within one channel only.
        """
        self._margin = margin
        self._at = at
        self._outstanding: dict[int, int] = {}  # canary number -> when it was published

    @property
    def at(self) -> int | None:
        """The publish time of the newest canary that came back; None before the first."""
        return self._at

    @property
    def horizon(self) -> int | None:
        """Everything published before this time has been seen; what the deadlines are held against."""
        return None if self._at is None else self._at - self._margin

    def sent(self, number: int, at: int) -> None:
        """Note that a canary was published; its trace event may have been quicker than this note."""
        if self._at is None or at > self._at:
            self._outstanding[number] = at

    def returned(self, number: int, at: int) -> bool:
        """Note that the trace event of a canary was seen; it may be one of an earlier run, found in the backlog.

        True when canaries of this connection that were published before it did not come: the broker keeps the order
        within a channel, so their trace events are lost, and those of others may be.
        """
        self._outstanding.pop(number, None)
        missing = [other for other, sent_at in self._outstanding.items() if sent_at <= at]
        for other in missing:
            del self._outstanding[other]
        if self._at is None or at > self._at:
            self._at = at
        return bool(missing)

    def forget(self) -> None:
        """Give up the canaries that are still out: the connection they went through is gone."""
        self._outstanding.clear()

    def silent_since(self) -> int | None:
        """When the oldest canary that has not come back was published; None when all are back."""
        return min(self._outstanding.values(), default=None)
