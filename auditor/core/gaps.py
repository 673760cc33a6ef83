"""Gaps: spans of time in which events may have been missed, and how they are told apart from mere silence.

A gap is noticed late: some canary does not come back, or the trace queue is found gone. It began after the last canary
that did come back, and it ends with the first one that was published after the gap was noticed (or mended) and comes
back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from auditor.core.hops import Reason


class GapReason(StrEnum):
    """Why events may have been missed."""

    FIRST_START = "first_start"  # nothing was audited before this auditor's first start
    FIREHOSE_OFF = "firehose_off"  # the broker traced nothing
    QUEUE_GONE = "queue_gone"  # the trace queue was not there
    OVERFLOW = "overflow"  # the trace queue dropped events
    POISON = "poison"  # the trace queue had to be emptied of an event that cannot be delivered
    INCOMPLETE = "incomplete"  # the broker counted more publishes than were seen
    LEDGER_DAMAGED = "ledger_damaged"  # what was recorded lies in a damaged ledger, moved aside
    OTHER_LEDGER = "other_ledger"  # what was read is in another ledger: this one was restored from a backup
    BLIND = "blind"  # no canary came back, and why is not known

    @property
    def of_hop(self) -> Reason:
        """The reason of the hops whose flight the gap covers."""
        return _OF_HOP.get(self, Reason.BLIND)


_OF_HOP = {GapReason.QUEUE_GONE: Reason.QUEUE_GONE, GapReason.OVERFLOW: Reason.OVERFLOW}


@dataclass(slots=True)
class Gap:
    """A span of time that was not audited; microseconds since the epoch."""

    id: int
    reason: GapReason
    from_at: int | None  # None: since ever
    noticed_at: int
    to_at: int | None = None  # None: it still lasts
    began: bool = False  # a canary that never came back proves that it did not begin later
    missing: int | None = None  # publishes that the broker counted and that were not seen; None: not known
    suspected: bool = False  # canaries are late and nobody knows why: they may still come, and then nothing is missing

    @property
    def void(self) -> bool:
        """Whether it turned out that nothing is missing."""
        return self.from_at is not None and self.from_at == self.to_at

    def covers(self, from_at: int, to_at: int) -> bool:
        """Whether the gap overlaps a span of time."""
        if self.void:
            return False
        return (self.from_at is None or self.from_at < to_at) and (self.to_at is None or self.to_at > from_at)

    def reaches(self, since: int | None) -> bool:
        """Whether a span that begins at `since` goes on where this gap is, or ends."""
        return since is not None and (self.from_at is None or self.from_at <= since) and since <= (self.to_at or since)


class Gaps:
    """Opens and closes the gaps of one vhost."""

    def __init__(self, open_gap: Gap | None = None) -> None:
        """Start with the gap that the ledger has open, if it has one."""
        self._open = open_gap
        self._proven: Gap | None = None

    @property
    def proven(self) -> Gap | None:
        """The last gap that was over when it was found."""
        return self._proven

    @property
    def open(self) -> Gap | None:
        """The gap that still lasts."""
        return self._open

    @property
    def suspected(self) -> bool:
        """Whether it is open whether there is a gap at all: nothing can be claimed until that is known."""
        return self._open is not None and self._open.suspected

    def confirm(self) -> None:
        """Take in that it will not be known whether the canaries that are out would have come back."""
        if self._open is not None:
            self._open.suspected = False

    def notice(
        self, reason: GapReason, at: int, since: int | None, new_id: Callable[[], int], *, suspected: bool = False
    ) -> Gap:
        """Take in that events may be missing since the last canary that came back (`since`), noticed `at`.

        A gap that is open goes on: only canaries that are published from here on can end it. A reason that was unknown
        may be known now. One that is only `suspected` is void if all canaries come back after all.
        """
        if self._open is None:
            self._open = Gap(new_id(), reason, since, at, suspected=suspected and since is not None)
        else:
            self._open.noticed_at = at
            self._open.suspected = self._open.suspected and suspected
            if self._open.reason is GapReason.BLIND:
                self._open.reason = reason
        return self._open

    def missed(self, reason: GapReason, since: int | None, at: int, new_id: Callable[[], int]) -> Gap | None:
        """Take in that events between the canaries published at `since` and `at`, which came back, did not.

        Returns the gap that this proves, be it the last one, grown; None when it is part of the one that lasts.
        """
        gap, proven = self._open, self._proven
        if gap is not None:
            gap.began = True
            gap.suspected = False
            if gap.reason is GapReason.BLIND:
                gap.reason = reason
            if since is None or (gap.from_at is not None and since < gap.from_at):
                gap.from_at = since
            return None
        if proven is not None and proven.reason is reason and proven.to_at is not None and proven.reaches(since):
            proven.to_at = max(at, proven.to_at)
        else:
            self._proven = proven = Gap(new_id(), reason, since, noticed_at=at, to_at=at)
        return proven

    def sighted(self, at: int) -> Gap | None:
        """Take in that the canary published `at` came back; return the gap if that has changed it."""
        gap = self._open
        if gap is None:
            return None
        if at < gap.noticed_at:
            # an older one, found in the backlog: the gap began later than was thought
            if not gap.began and gap.from_at is not None and at > gap.from_at:
                gap.from_at = at
                return gap
            return None
        gap.to_at = gap.from_at if gap.suspected and gap.missing is None else at
        self._open = None
        return gap
