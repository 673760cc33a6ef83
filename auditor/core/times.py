"""When events happened: the firehose does not say, and what arrives late would otherwise count as late.

While the auditor keeps up, an event happened when it arrived. When it is behind, an event lies between two canaries:
the newest that came back, and the next, which is still out. A publish is put at the end of that span and a delivery at
its beginning, so that an estimate never makes a delivery late.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

BROKERS_TIME = "timestamp_in_ms"  # the header that the broker's interceptor sets


class TimeSource(StrEnum):
    """How exact the time of a publish is."""

    ARRIVAL = "arrival"  # when the auditor saw it, which was at once
    BROKER = "broker"  # the broker wrote it into the message
    CANARY = "canary"  # approximate: when the canary behind it was published; it was not published later
    BACKLOG = "backlog"  # when the auditor saw it, after it had been away or behind; it was published before that


class Times:
    """Tells the times of the events of one vhost, in microseconds."""

    def __init__(self, *, behind: int, far_behind: int, broker_timestamps: bool) -> None:
        """An event is read late when it arrives `behind` after the newest canary that came back.

        A canary that is out for `far_behind` is late itself and not lost, because a loss would have been noticed.
        `broker_timestamps`: the broker writes the time into each message; without this it would be a publisher's word.
        """
        self._behind = behind
        self._far_behind = far_behind
        self._broker_timestamps = broker_timestamps
        self._newest: int | None = None
        self._upcoming: int | None = None

    def advance(self, newest: int | None, upcoming: int | None) -> None:
        """Take in when the newest canary that came back was published, and the next one that did not yet."""
        self._newest = newest
        self._upcoming = upcoming

    def published(self, received_at: int, headers: Mapping[str, Any]) -> tuple[int, TimeSource]:
        """Return when a publish happened, or a time that it did not happen after."""
        newest, upcoming = self._newest, self._upcoming
        if self._broker_timestamps and BROKERS_TIME in headers:
            stamp = headers[BROKERS_TIME]
            if isinstance(stamp, int):
                at = stamp * 1000
                # outside of what the canaries allow, the broker's clock is another than ours
                if at <= received_at + self._behind and (newest is None or newest - self._behind <= at):
                    return min(at, received_at), TimeSource.BROKER
        if newest is None or received_at - newest <= self._behind:
            return received_at, TimeSource.ARRIVAL
        if upcoming is not None and received_at - upcoming > self._far_behind:
            return upcoming, TimeSource.CANARY
        return received_at, TimeSource.BACKLOG

    def delivered(self, received_at: int) -> int:
        """Return when a delivery happened, or a time that it did not happen before."""
        newest = self._newest
        return received_at if newest is None or received_at - newest <= self._behind else newest
