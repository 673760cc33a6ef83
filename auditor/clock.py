"""The audit's clock: the wall clock's time, but it never jumps.

Canaries, deadlines and arrivals are all told by it. A wall clock can be set (by a person, by a time server, by a
virtual machine that is resumed): set back, no canary would be newer than the newest one, and the audit would stand
still; set forward, every deadline would have passed at once. So the time is taken from the wall clock once, at the
start, and goes on with the monotonic clock from there. When the wall clock is set, this one follows it slowly.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

FOLLOW = 1.0  # seconds between two calls of `follow`
_RATE = 0.01  # how much faster or slower it goes at most: what a span that is measured by it can be wrong by
_SMOOTH = 60_000_000  # microseconds in which a small difference is made up
_STEP = 1_000_000  # microseconds; a change of the difference that no drift explains, and that is worth telling


class Clock:
    """Tells the time in microseconds since the epoch. To be asked and moved from one thread."""

    def __init__(
        self,
        not_before: int = 0,
        *,
        wall: Callable[[], int] = lambda: time.time_ns(),
        steady: Callable[[], int] = lambda: time.monotonic_ns(),
    ) -> None:
        """Start at the wall clock's time, or at `not_before` (the newest time that the ledger knows) if it is later.

        `wall` and `steady` are in nanoseconds.
        """
        self._wall = wall
        self._steady = steady
        self._since = steady()
        self._base = max(wall() // 1000, not_before)
        self._rate = 0.0
        self._apart = 0
        self.problem: str | None = None
        """In words, that the wall clock tells another time; None when it does not."""
        self.follow()

    def now(self) -> int:
        """Return the time; never less than the last one."""
        passed = self._steady() - self._since
        return self._base + (passed + int(passed * self._rate)) // 1000

    def follow(self) -> None:
        """Compare with the wall clock, and go after it; to be called every `FOLLOW` seconds."""
        steady = self._steady()
        passed = steady - self._since
        self._base += (passed + int(passed * self._rate)) // 1000
        self._since = steady
        apart = self._wall() // 1000 - self._base
        self._rate = min(max(apart / _SMOOTH, -_RATE), _RATE)
        stepped = apart - self._apart
        self._apart = apart
        if abs(stepped) > _STEP:
            log.warning(
                "This machine's clock was set: the audit's own time goes on, and follows it slowly",
                extra={"by_seconds": round(stepped / 1e6, 3)},
            )
        if abs(apart) > _STEP:
            # in whole minutes or so: the text is told again whenever it changes
            self.problem = (
                f"This machine's clock was set: it is {_about(abs(apart))} {'ahead of' if apart > 0 else 'behind'}"
                " the audit's time, which follows it slowly"
            )
        elif self.problem is not None:
            self.problem = None
            log.info("The audit's time is this machine's again")


def _about(microseconds: int) -> str:
    seconds = microseconds // 1_000_000
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
