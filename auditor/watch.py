"""The watch over one vhost: keeps the tap, the canaries and the inspections going, for ever.

Everything here runs on the event loop and waits; everything that decides runs in `auditor.audit`, on the audit thread.
A session lasts as long as its two connections: one that only consumes, and one for canaries and inspections. When
either goes, both are given up and a new session begins, after a pause that grows.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial

from auditor.audit import Connection, Notice, Outcome, Step, VhostAudit
from auditor.completeness import Counting
from auditor.core.completeness import Reading
from auditor.core.events import TraceEvent
from auditor.core.gaps import GapReason
from auditor.core.judge import Inspection
from auditor.errors import AuditorError, BrokerError, LedgerDamaged, LedgerError
from auditor.tap.canary import Canary, Sighting
from auditor.tap.connection import CONNECTION_ERRORS, Endpoint, answer
from auditor.tap.consumer import Poisoned, Tap
from auditor.tap.control import Control
from auditor.tap.inspection import Inspector
from auditor.tap.management import Management
from auditor.tap.plain import PlainTap
from auditor.tap.poison import take_head
from auditor.tap.wire import Content
from auditor.thread import AuditThread

log = logging.getLogger(__name__)

_LEDGER_PAUSE = 1.0  # seconds between attempts to commit what the ledger refused
_CLEARED = 60.0  # seconds; RabbitMQ took 11 to 20 to clear away a connection that it ended by 541
_LOOK = 0.5  # seconds between two looks whether it has
_INSIST = 0.5  # seconds until a task that was cancelled and goes on is cancelled again
_IDLE = 1.0  # seconds without an event after which a step is taken all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """What a watch is told; spans of time in seconds."""

    queue: str
    binding_keys: Sequence[str]
    max_bytes: int
    prefetch: int
    max_buffered: int
    batch_events: int
    batch_linger: float
    canary_interval: float
    canary_timeout: float
    reconnect_min: float
    reconnect_max: float
    enable_firehose: bool
    plain: bool = False  # consume as the client library does


class Watch:
    """See the module's text."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: WatchSettings,
        *,
        canary: Canary,
        audit: VhostAudit,
        management: Management | None,
        thread: AuditThread,
        counting: Counting | str,
    ) -> None:
        """`counting` reads the broker's counters, or says why nobody does."""
        self._endpoint = endpoint
        self._settings = settings
        self._canary = canary
        self._audit = audit
        self._management = management
        self._thread = thread
        self._counting = counting if isinstance(counting, Counting) else None
        self._uncounted = counting if isinstance(counting, str) else None
        self._stopping = asyncio.Event()
        self._tap: Tap | None = None
        self._next_canary = 1
        # each queue stands in it once: the judge waits for the answer
        self._to_inspect: asyncio.Queue[str] = asyncio.Queue()
        self._problem: str | None = None
        self._broker = ""
        self._queue_depth: int | None = None
        self._unwritten = False  # whether a step is, or may be, not committed
        self._owing = False  # whether a batch is, or may be, committed and not acknowledged
        self._settled = False  # whether all was acknowledged when the last session ended
        self._poisoned = 0  # sessions in a row that the broker ended because it could not deliver an event
        # gathered for the next step:
        self._rescued: list[TraceEvent] = []
        self._sent: list[Sighting] = []
        self._inspections: list[Inspection] = []
        self._notices: list[Notice] = []
        self._counts: list[Reading] = []

    @property
    def vhost(self) -> str:
        """The vhost that is watched."""
        return self._endpoint.vhost

    def stop(self) -> None:
        """Have `run` return once the batch in hand is committed and acknowledged."""
        self._stopping.set()
        if self._tap is not None:
            self._tap.wake()

    async def run(self) -> None:
        """Watch until `stop` is called; may be cancelled, too. LedgerDamaged ends it."""
        pause = self._settings.reconnect_min
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                await answer(self._session())
            except LedgerDamaged:
                raise
            except AuditorError as error:
                self._report(error)
                if isinstance(error, Poisoned):
                    self._poisoned += 1
                    pause = self._settings.reconnect_min  # the broker is well: each such event costs two sessions
                else:
                    self._poisoned = 0
            except CONNECTION_ERRORS as error:
                self._report(BrokerError("Lost the broker", on=str(self._endpoint), why=str(error) or repr(error)))
            except Exception as error:  # aiormq has been seen to end a pending call with a bare one
                log.exception("A session ended by an error that was not expected", extra={"vhost": self.vhost})
                self._report(BrokerError("Lost the broker", on=str(self._endpoint), why=repr(error)))
            if self._stopping.is_set():
                break
            await self._step([], connected=False)
            if time.monotonic() - began > self._settings.reconnect_max:
                pause = self._settings.reconnect_min
            await self._rest(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, self._settings.reconnect_max)

    async def close(self) -> None:
        """Have the ledger take in how it ended, once `run` has."""
        await self._step([], connected=False)

    async def _session(self) -> None:
        settings = self._settings
        async with aclosing(await Control.open(self._endpoint, f"auditor control {settings.queue}")) as control:
            self._broker = control.version
            if await control.declare(self._canary.exchange, settings.queue, settings.binding_keys, settings.max_bytes):
                self._notice(GapReason.QUEUE_GONE)
            await self._look_at_firehose()
            if self._poisoned > 1:
                await self._remove_poison(control)
            # with one event at a time, whatever ends the connection is alone at the head of the queue then
            prefetch = 1 if self._poisoned else settings.prefetch
            lane = PlainTap if settings.plain else Tap
            tap = lane(self._endpoint, settings.queue, prefetch=prefetch, max_buffered=settings.max_buffered)
            self._settled = self._owing = False
            await tap.open()
            self._tap = tap
            try:
                self._connected()
                jobs = [
                    self._read(tap, control.inspector()),
                    self._send_canaries(control),
                    self._inspect(control.inspector()),
                ]
                if self._counting is not None:
                    jobs.append(self._counting.run(self._counted))
                await _first_to_end(*jobs)
            finally:
                self._tap = None
                self._settled = await tap.close() and not self._owing

    # the things that go on during a session

    async def _read(self, tap: Tap, inspector: Inspector) -> None:
        settings = self._settings
        looked_at = time.monotonic()
        while not self._stopping.is_set():
            contents = await tap.batch(settings.batch_events, settings.batch_linger, _IDLE)
            if contents:
                self._owing = True  # from here on a commit may come about, even if this is cancelled while it waits
                tap.pause()
            outcome = await self._step(contents, connected=True)
            tap.resume()
            if outcome is None:
                return
            if contents:
                await tap.acknowledge(contents[-1])
                self._owing = False
            for queue in outcome.inspect:
                self._to_inspect.put_nowait(queue)
            if _now() - (outcome.silent_since or _now()) < settings.canary_timeout * 1e6:
                if outcome.gap is None:
                    self._mended()
            elif time.monotonic() - looked_at > settings.canary_timeout:
                looked_at = time.monotonic()
                await self._explain_silence(inspector, arriving=bool(contents))

    async def _send_canaries(self, control: Control) -> None:
        while True:
            sighting = Sighting(self._next_canary, _now())
            self._next_canary += 1
            try:
                await control.send(self._canary, sighting)
            except TimeoutError:
                self._say("The broker takes no publishes (memory or disk alarm?): no verdicts until it does")
            else:
                self._sent.append(sighting)
            await asyncio.sleep(self._settings.canary_interval)

    async def _inspect(self, inspector: Inspector) -> None:
        while True:
            found = await inspector.inspect(await self._to_inspect.get())
            self._inspections.append(found)  # not in one line with the await: a step replaces the list meanwhile

    def _counted(self, reading: Reading | None, uncounted: str | None) -> None:
        self._uncounted = uncounted
        if reading is not None:
            self._counts.append(reading)

    # the firehose

    async def _look_at_firehose(self) -> None:
        """Turn the firehose on if the management API says that it is off."""
        if self._management is None:
            return
        vhost = self._endpoint.vhost
        try:
            if await asyncio.to_thread(self._management.firehose_is_on, vhost) is not False:
                return
            if not self._settings.enable_firehose:
                self._notice(GapReason.FIREHOSE_OFF)
                self._say(f"The firehose is off, and tap.enable_firehose forbids to turn it on: {self._trace_on()}")
                return
            await asyncio.to_thread(self._management.turn_firehose_on, vhost)
        except BrokerError as error:
            self._report(error)
            return
        log.info("The firehose was off: turned it on", extra={"vhost": vhost})
        self._notice(GapReason.FIREHOSE_OFF)

    async def _explain_silence(self, inspector: Inspector, *, arriving: bool) -> None:
        """Canaries are out for too long: are we behind, or blind? By a slow line, events that the queue no longer
        holds are still `arriving`."""
        found = await inspector.inspect(self._settings.queue)
        self._queue_depth = found.ready
        if found.ready or arriving:
            self._say("Behind: there are events that were not read yet; verdicts wait for them")
            return
        self._notice(GapReason.BLIND)
        self._say(
            f"Blind: no canary comes back, so the firehose is off or not bound. To turn it on: {self._trace_on()}"
        )
        await self._look_at_firehose()

    def _trace_on(self) -> str:
        return f"rabbitmqctl trace_on -p {self._endpoint.vhost}"

    # events that cannot be delivered

    async def _remove_poison(self, control: Control) -> None:
        """Take the event that ends our connections out of the trace queue, or empty the queue where that cannot be."""
        self._poisoned = 0
        queue = self._settings.queue
        await self._cleared(control.inspector())
        if self._management is not None:
            try:
                event = await asyncio.to_thread(take_head, self._management, self._endpoint.vhost, queue, _now())
            except (BrokerError, KeyError, TypeError) as error:
                log.warning("Could not take the event out by the management API", extra={"why": str(error)})
            else:
                if event is not None:
                    self._rescued.append(event)
                    log.warning("Took the event that cannot be delivered out by the management API")
                return
        await control.purge(queue)
        self._notice(GapReason.POISON)
        log.error(
            "An event that cannot be delivered blocked the trace queue: emptied it, and recorded a gap."
            " With broker.management only that one event would have been taken out",
            extra={"queue": queue},
        )

    async def _cleared(self, inspector: Inspector) -> None:
        """Wait until no consumer of ours is left, dead as they all are: before, their event is not back in the queue.

        In its place a neighbour would stand at the head.
        """
        until = time.monotonic() + _CLEARED
        while not self._stopping.is_set() and time.monotonic() < until:
            if (await inspector.inspect(self._settings.queue)).consumers == 0:
                return
            await self._rest(_LOOK)

    # steps

    async def _step(self, contents: Sequence[Content], *, connected: bool) -> Outcome | None:
        """Have the audit take a step, however long the ledger refuses it; None when the stop came first."""
        if self._unwritten and not await self._flush():
            return None
        step = Step(
            contents,
            self._rescued,
            self._sent,
            self._inspections,
            self._notices,
            Connection(connected, not connected and self._settled, self._broker, self._problem, self._queue_depth),
            _now(),
            self._counts,
            self._uncounted,
        )
        self._rescued, self._sent, self._inspections, self._notices, self._counts = [], [], [], [], []
        self._unwritten = True  # should this be cancelled, the thread takes the step all the same
        try:
            outcome = await self._thread.run(lambda: self._audit.step(step))
        except LedgerDamaged:
            raise
        except LedgerError as error:
            await self._refused(error)
            # the outcome is lost with the failed step; the judge asks again for what it did not get
            return Outcome([], None, None, None) if await self._flush(refused=True) else None
        self._unwritten = False
        return outcome

    async def _flush(self, *, refused: bool = False) -> bool:
        """Have the audit commit what it could not, as often as it takes; False when the stop came first."""
        while True:
            try:
                await self._thread.run(self._audit.flush)
            except LedgerDamaged:
                raise
            except LedgerError as error:
                refused = True
                await self._refused(error)
            else:
                self._unwritten = False
                if refused:
                    self._mended()
                return True
            if self._stopping.is_set():
                return False
            await self._rest(_LEDGER_PAUSE)

    async def _refused(self, error: LedgerError) -> None:
        """Say why the ledger was not written, in its status, too, if that can be: it takes but a page."""
        self._report(error)
        with suppress(LedgerError):
            await self._thread.run(partial(self._audit.tell, self._problem, _now()))

    def _notice(self, reason: GapReason) -> None:
        self._notices.append(Notice(reason, _now()))

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not beyond a stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    # what is said: once, when it changes

    def _connected(self) -> None:
        log.info("Reading the firehose", extra={"broker": str(self._endpoint), "version": self._broker})

    def _mended(self) -> None:
        if self._problem is not None:
            self._problem = None
            log.info("All is well again", extra={"vhost": self._endpoint.vhost})

    def _report(self, error: AuditorError) -> None:
        self._say(str(error))

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            log.warning(problem, extra={"vhost": self._endpoint.vhost})


async def _first_to_end(*jobs: Awaitable[None]) -> None:
    """Run jobs side by side until the first of them ends; then end the others, and raise what it raised."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)
    for task in done:
        await answer(task)


async def end(tasks: Sequence[asyncio.Future[None]]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough: a cancellation that meets the broker's refusal of the same call comes out of aiormq as the
    refusal, and the job goes on.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_INSIST)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # so that nobody complains that it was never looked at


def _now() -> int:
    return time.time_ns() // 1000
