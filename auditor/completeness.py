"""Asks the broker for its counter of publishes, for the comparison with what was seen.

The management plugin collects the counters every few seconds, and what it answers may be as old as that. So it is asked
until the answer changes: then the counter was taken since the question before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from auditor.core.completeness import Reading
from auditor.errors import BrokerError
from auditor.tap.management import Counters, Management

log = logging.getLogger(__name__)

_POLL = 0.5  # seconds between two questions: under traffic, what passes in that time is what cannot be told
_UNCHANGED = 15.0  # seconds after which no change is waited for; counters are collected every 5 s by default
_WHOLE = 0.25  # seconds after which a collection that was being entered is entered
_OF_SEVERAL = 15.0  # seconds; the nodes of a cluster collect in turn, and a change may be another node's

NO_MANAGEMENT = (
    "broker.management is not set: with a user of the tag monitoring, what was seen is compared with what was counted"
)
NARROW = "the trace queue gets the publishes to some exchanges only; with tap.bind = 'all' they can be compared"
TRANSACTIONS = (
    "channels of this vhost use transactions: a publish is counted when it is committed, and never if rolled back"
)


class Counting:
    """The readings of one vhost."""

    def __init__(
        self, management: Management, vhost: str, canary_exchange: str, interval: float, now: Callable[[], int]
    ) -> None:
        """`interval` is in seconds; `now` tells the time as for all that is read, in microseconds."""
        self._management = management
        self._vhost = vhost
        self._canaries = canary_exchange
        self._interval = interval
        self._now = now
        self._note: str | None = None

    async def run(self, take: Callable[[Reading | None, str | None], None]) -> None:
        """Hand in a reading now and then, for ever; or None, and the reason why there is none."""
        while True:
            try:
                reading = await self._read()
            except BrokerError as error:
                self._say(str(error))
                take(None, str(error))
            else:
                self._say(None)
                if reading is not None:
                    take(reading, TRANSACTIONS if reading.transactional else None)
            await asyncio.sleep(self._interval)

    async def _read(self) -> Reading | None:
        """Wait for the next change of the counters; None if there is none, or they could not be read at one time."""
        transactional = await asyncio.to_thread(self._management.uses_transactions, self._vhost)
        until = time.monotonic() + _UNCHANGED
        asked_at, before = self._now(), await self._ask()
        while time.monotonic() < until:
            await asyncio.sleep(_POLL)
            asking_at, counters = self._now(), await self._ask()
            if counters is not None and before is not None and counters != before:
                await asyncio.sleep(_WHOLE)
                whole = await self._ask()
                return None if whole is None else _reading(whole, asked_at, self._now(), transactional)
            if counters is not None:
                asked_at, before = asking_at, counters
        return None

    async def _ask(self) -> Counters | None:
        return await asyncio.to_thread(self._management.counters, self._vhost, self._canaries)

    def _say(self, note: str | None) -> None:
        if note != self._note:
            self._note = note
            if note is not None:
                log.warning("Cannot compare with the broker's counters: %s", note, extra={"vhost": self._vhost})


def _reading(counters: Counters, changed_since: int, now: int, transactional: bool) -> Reading:
    return Reading(
        counter=counters.published - counters.canaries,
        canaries=counters.canaries,
        nodes=" ".join(counters.nodes),
        taken_from=changed_since if len(counters.nodes) == 1 else min(changed_since, now - int(_OF_SEVERAL * 1e6)),
        taken_to=now,
        transactional=transactional,
    )
