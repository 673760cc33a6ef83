"""The backlog: how much stood in the trace queue before a canary, and so whether the queue may have dropped events.

The trace queue is bounded by the bytes of its bodies, and drops the oldest events beyond. What was read between the
sending of a canary and its return stood in front of it: if that is nearly as much as the bound allows, the queue was
full, and may have dropped what was older. This needs no right to ask anybody, and it tells of the time before a start
as well: the first canary of a run stands behind all that the queue has kept.
"""

from __future__ import annotations

from typing import NamedTuple

_FULL = 0.9  # of the bound: events of one canary interval and of a batch are not told apart
_MAX_OUT = 10_000  # canaries that are remembered


class _Sent(NamedTuple):
    """How things stood when a canary was sent."""

    read: int  # bytes
    watermark: int | None


class Backlog:
    """Measures the trace queue of one vhost in bytes of bodies."""

    def __init__(self, bound: int) -> None:
        """`bound` is how many the queue may hold."""
        self._bound = bound
        self._read = 0
        self._sent: dict[int, _Sent] = {}  # canary number -> how things stood

    def read(self, size: int) -> None:
        """Take in that events with so many bytes were read."""
        self._read += size

    def sent(self, number: int, watermark: int | None) -> None:
        """Take in that a canary was sent, and how far the audit had seen then."""
        if len(self._sent) >= _MAX_OUT:
            del self._sent[next(iter(self._sent))]
        self._sent[number] = _Sent(self._read, watermark)

    def overflowed(self, number: int) -> tuple[int | None] | None:
        """Take in that a canary came back; return since when events may have been dropped, if they may have been."""
        sent = self._sent.pop(number, None)
        if sent is None or self._read - sent.read < _FULL * self._bound:
            return None
        return (sent.watermark,)

    def forget(self) -> None:
        """Give up the canaries that are still out."""
        self._sent.clear()
