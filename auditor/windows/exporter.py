"""The exporter: takes what waits in the outbox, tells it, and has it removed only when it was taken.

A thread of its own. It reads by itself and writes through whoever owns the ledger; a receiver that is away, slow or
hangs holds up nobody but this thread. What the receiver does not want at all is given up, counted and reported.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from auditor.core.outgoing import Key, OrderTrace, Outgoing, Told
from auditor.errors import LedgerError
from auditor.windows.otlp import Later, Refused, Result, Sender, request
from auditor.windows.spans import Builder, Built

log = logging.getLogger(__name__)

BATCH = 500  # rows; of a thousand spans or so, well below the 4 MiB that a gRPC receiver takes by default
_POLL = 0.5  # seconds between two looks into an outbox that was empty, or nearly so
_FIRST_PAUSE = 1.0  # seconds before a receiver that was away is tried again; doubled each time
_LONGEST_PAUSE = 30.0
_LONGEST_WISH = 300.0  # seconds; a receiver that wants to be left alone for longer is asked again all the same
_GRACE = 0.2  # seconds for the thread to end, once the drain is over


class Waiting(Protocol):
    """What was read from the outbox."""

    @property
    def rows(self) -> list[Outgoing]:
        """What is to be told."""

    @property
    def vanished(self) -> list[Key]:
        """What cannot be told any more."""

    @property
    def orders(self) -> dict[int, OrderTrace]:
        """What was told of their orders."""


class Outbox(Protocol):
    """The ledger's side; its calls may raise LedgerError."""

    def read(self, limit: int) -> Waiting:
        """Return the oldest rows."""

    def done(self, keys: Iterable[Key], orders: Iterable[OrderTrace], told: Told) -> None:
        """Remove rows, note orders, add up counts."""

    def report(self, problem: str | None) -> None:
        """Note what keeps the rows from being told."""


class Exporter:
    """See the module's text. `start` it, and `stop` it while the outbox can still be written."""

    def __init__(self, outbox: Outbox, builder: Builder, sender: Sender, *, service: str, version: str) -> None:
        self._outbox = outbox
        self._builder = builder
        self._sender = sender
        self._service = service
        self._version = version
        self._stopping = threading.Event()
        self._stop_at: float | None = None
        self._problem: str | None = None
        self._refusal = ""  # the last one that was reported
        self._thread = threading.Thread(target=self._run, name="exporter", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        log.info("Exporting spans", extra={"endpoint": self._sender.endpoint})
        self._thread.start()

    def stop(self, drain: float) -> None:
        """Tell what waits for at most `drain` seconds more, if the receiver is there; then end the thread."""
        self._stop_at = time.monotonic() + drain
        self._stopping.set()
        self._thread.join(drain)
        self._sender.close()  # ends a request that hangs
        self._thread.join(_GRACE)

    def _run(self) -> None:
        try:
            while not self._over():
                if not self._round() and self._stopping.wait(_POLL):
                    # what came in before the stop is there by now: once more, until there is nothing
                    while not self._over() and self._round():
                        pass
                    return
        except _Stopped:
            pass
        except Exception:
            if self._stopping.is_set():
                return  # a request that hung has come back after all, and the ledger is closed
            # without this thread nothing is told, but nothing is lost either: the audit goes on
            log.exception("The exporter of spans has failed; until the next start they wait in the ledger")

    def _round(self) -> bool:
        """Tell the next rows; False when there was less than a batch."""
        try:
            waiting = self._outbox.read(BATCH)
        except LedgerError as error:
            self._say(str(error))
            return False
        if waiting.vanished:
            self._done(waiting.vanished, (), Told(dropped=len(waiting.vanished)))
        if not waiting.rows:
            self._well()
            return False
        self._tell(waiting.rows, waiting.orders)
        return len(waiting.rows) + len(waiting.vanished) >= BATCH

    def _tell(self, rows: Sequence[Outgoing], orders: Mapping[int, OrderTrace]) -> None:
        built = self._builder.build(rows, orders)
        told = Told(unsampled=built.unsampled, invalid_contexts=built.invalid_contexts)
        if built.spans:
            told = self._send(built, told)
        self._done([row.key for row in rows], built.orders, told)

    def _send(self, built: Built, told: Told) -> Told:
        """Send until there is an answer that settles it."""
        message = request(built.spans, service=self._service, version=self._version)
        pause = _FIRST_PAUSE
        while True:
            result = self._try(message)
            if not isinstance(result, Later):
                break
            self._say(f"The receiver of spans is away, they wait in the ledger: {result.why}")
            wish = min(result.after or 0.0, _LONGEST_WISH)
            self._rest(max(wish, pause * random.uniform(0.5, 1.0)))
            pause = min(pause * 2, _LONGEST_PAUSE)
        self._well()
        count = len(built.spans)
        if isinstance(result, Refused):
            self._refused(count, result.why)
            return told._replace(refused=count)
        rejected = min(result.rejected, count)
        if rejected or result.why:
            self._refused(rejected, result.why)
        return told._replace(spans=count - rejected, refused=rejected)

    def _try(self, message: object) -> Result:
        if self._over():
            raise _Stopped
        limit = None if self._stop_at is None else max(0.1, self._stop_at - time.monotonic())
        return self._sender.send(message, limit=limit)  # type: ignore[arg-type]

    def _done(self, keys: Sequence[Key], orders: Sequence[OrderTrace], told: Told) -> None:
        """Have it removed, however long the ledger refuses: what was taken must not be told again."""
        while True:
            try:
                self._outbox.done(keys, orders, told)
            except LedgerError as error:
                self._say(str(error))
                self._rest(_FIRST_PAUSE)
            else:
                return

    def _rest(self, seconds: float) -> None:
        """Sleep; a stop ends it, and the thread with it: who has failed just now is not asked again."""
        if self._stopping.wait(seconds):
            raise _Stopped

    def _over(self) -> bool:
        return self._stop_at is not None and time.monotonic() > self._stop_at

    # what is said: once, when it changes

    def _say(self, problem: str) -> None:
        if self._problem is None:
            log.warning(problem, extra={"endpoint": self._sender.endpoint})
        if problem != self._problem:
            self._problem = problem
            self._report()

    def _well(self) -> None:
        if self._problem is not None:
            self._problem = None
            log.info("Spans are exported again", extra={"endpoint": self._sender.endpoint})
            self._report()

    def _refused(self, count: int, why: str) -> None:
        if why != self._refusal:
            self._refusal = why
            log.warning("The receiver refused spans; they are not sent again", extra={"count": count, "why": why})

    def _report(self) -> None:
        with suppress(LedgerError):  # batches fail by the same cause, and say so
            self._outbox.report(self._problem)


class _Stopped(Exception):
    """The time is over, or the receiver is away and there is no time to wait for it."""
