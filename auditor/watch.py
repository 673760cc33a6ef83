"""The watch over one vhost: keeps the tap, the canaries and the inspections going, for ever.

Everything here runs on the event loop and waits; everything that decides runs in `auditor.audit`, on the audit thread.
A session lasts as long as its two connections to one node: one that only consumes, and one for canaries and
inspections. When either goes, both are given up and a new session begins with the next node, after a pause that grows.
The canaries of the other nodes (`auditor.canaries`) go on meanwhile as well as they can.
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
from auditor.blindness import Blindness, Finding
from auditor.canaries import Canaries
from auditor.clock import Clock
from auditor.completeness import Counting
from auditor.core.completeness import Reading
from auditor.core.events import TraceEvent
from auditor.core.gaps import GapReason
from auditor.core.judge import Inspection
from auditor.errors import AuditorError, BrokerError, LedgerDamaged, LedgerError
from auditor.tap.connection import CONNECTION_ERRORS, Endpoint, answer
from auditor.tap.consumer import Poisoned, Tap
from auditor.tap.control import Control
from auditor.tap.inspection import Inspector
from auditor.tap.management import Management
from auditor.tap.plain import PlainTap
from auditor.tap.poison import cannot_be_delivered, take_head
from auditor.tap.wire import Content
from auditor.thread import AuditThread

log = logging.getLogger(__name__)

_LEDGER_PAUSE = 1.0  # seconds between attempts to commit what the ledger refused
_LOOK = 0.5  # seconds between two looks whether others still read the trace queue
_OTHERS = 5.0  # seconds after which it is said that they do
_INSIST = 0.5  # seconds until a task that was cancelled and goes on is cancelled again
_IDLE = 1.0  # seconds without an event after which a step is taken all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """What a watch is told; spans of time in seconds."""

    queue: str
    prefetch: int
    max_buffered: int
    batch_events: int
    batch_linger: float
    canary_timeout: float
    reconnect_min: float
    reconnect_max: float
    plain: bool = False  # consume as the client library does


class Watch:
    """See the module's text."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        settings: WatchSettings,
        *,
        canaries: Canaries,
        blindness: Blindness,
        audit: VhostAudit,
        management: Management | None,
        clock: Clock,
        thread: AuditThread,
        counting: Counting | str,
    ) -> None:
        """`endpoints` are the nodes of one broker; `management` is the API for what concerns the trace queue.

        `counting` reads the broker's counters, or says why nobody does.
        """
        self._endpoints = endpoints
        self._home = 0  # the node of the session
        self._settings = settings
        self._canaries = canaries
        self._canaries.seen = audit.watermark
        self._blindness = blindness
        self._audit = audit
        self._management = management
        self._clock = clock
        self._thread = thread
        self._counting = counting if isinstance(counting, Counting) else None
        self._uncounted = counting if isinstance(counting, str) else None
        self._stopping = asyncio.Event()
        self._tap: Tap | None = None
        # each queue stands in it once: the judge waits for the answer
        self._to_inspect: asyncio.Queue[str] = asyncio.Queue()
        self._silent: frozenset[str] = frozenset()  # nodes whose canaries are out for too long
        self._unexplained = asyncio.Event()
        self._arriving = False  # the last batch had events
        self._lost_at: int | None = None  # when the last session ended
        self._problem: str | None = None
        self._broker = ""
        self._queue_depth: int | None = None
        self._unwritten = False  # whether a step is, or may be, not committed
        self._owing = False  # whether a batch is, or may be, committed and not acknowledged
        self._settled = False  # whether all was acknowledged when the last session ended
        self._comparing = False  # whether the newest canary is being read, or the last session ended over it
        self._poisoned = False  # whether the broker ended the last session because it could not deliver an event
        self._at_head = False  # whether that event was the first one of the session
        self._received = False  # whether the session has read anything
        # gathered for the next step:
        self._rescued: list[TraceEvent] = []
        self._inspections: list[Inspection] = []
        self._notices: list[Notice] = []
        self._counts: list[Reading] = []

    @property
    def _endpoint(self) -> Endpoint:
        return self._endpoints[self._home]

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
                self._at_head = isinstance(error, Poisoned) and self._poisoned and not self._received
                self._poisoned = isinstance(error, Poisoned)
                if self._poisoned:
                    pause = self._settings.reconnect_min  # the broker is well: such an event costs some sessions
            except CONNECTION_ERRORS as error:
                self._report(BrokerError("Lost the broker", on=str(self._endpoint), why=str(error) or repr(error)))
            except Exception as error:  # aiormq has been seen to end a pending call with a bare one
                log.exception("A session ended by an error that was not expected", extra={"vhost": self.vhost})
                self._report(BrokerError("Lost the broker", on=str(self._endpoint), why=repr(error)))
            if self._stopping.is_set():
                break
            await self._step([], connected=False)
            self._home = (self._home + 1) % len(self._endpoints)
            if time.monotonic() - began > self._settings.reconnect_max:
                pause = self._settings.reconnect_min
            await self._rest(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, self._settings.reconnect_max)

    async def close(self) -> None:
        """Have the ledger take in how it ended, once `run` has."""
        await self._step([], connected=False)

    async def _session(self) -> None:
        settings, home, now = self._settings, self._endpoint, self._clock.now
        name = f"auditor control {settings.queue}"
        async with aclosing(await Control.open(home, name, now)) as control:
            self._broker = control.version
            self._take_in(await self._blindness.declare(control, known=self._audit.watermark is not None))
            self._take_in(await self._blindness.look_at_firehose())
            await self._be_alone(control.inspector())
            await self._compare_ledger(control)
            if self._at_head:
                await self._remove_poison(control)
            self._canaries.away.pop(home.node, None)
            # before anything is read: behind this one stands nothing that the queue has kept until now
            await self._canaries.send(control, home.node)
            # with one event at a time, whatever ends the connection is alone in the air
            prefetch = 1 if self._poisoned else settings.prefetch
            lane = PlainTap if settings.plain else Tap
            tap = lane(home, settings.queue, prefetch=prefetch, max_buffered=settings.max_buffered, now=now)
            self._settled = self._owing = self._received = False
            self._silent = frozenset()
            self._unexplained.clear()
            await tap.open()
            self._tap = tap
            try:
                self._connected()
                jobs: list[Awaitable[None]] = [
                    self._read(tap),
                    self._canaries.go_on(control, home.node),
                    self._inspect(control.inspector()),
                    self._explain(control),
                    *(self._canaries.visit(other, name) for other in self._endpoints if other is not home),
                ]
                if self._counting is not None:
                    jobs.append(self._counting.run(self._counted))
                await _first_to_end(*jobs)
            finally:
                self._tap = None
                self._lost_at = self._clock.now()
                self._settled = await tap.close() and not self._owing

    async def _be_alone(self, inspector: Inspector) -> None:
        """Wait until nobody else consumes from the trace queue.

        A connection that broke is often alive to the broker for some time: 20 s where it cannot tell by the heartbeat,
        11 to 20 after a 541. What it has not acknowledged comes back only when it is cleared away, and what is read
        before that overtakes it: the watermark would pass deliveries that nobody has seen.
        """
        patience = time.monotonic() + _OTHERS
        while not self._stopping.is_set() and (await inspector.inspect(self._settings.queue)).consumers:
            if time.monotonic() > patience:
                self._say(
                    f"Somebody else reads the trace queue {self._settings.queue}, and one must read it alone: waiting"
                    " until that connection ends. Another auditor needs a trace queue of its own (tap.queue)"
                )
                await self._step([], connected=False)
            await self._rest(_LOOK)

    async def _compare_ledger(self, control: Control) -> None:
        """Find out whether the trace queue was read into another ledger since ours: into one that saw further."""
        # what the library cannot read ends the connection, and would end the next one too; a canary will take its place
        unreadable, self._comparing = self._comparing, not self._comparing
        if unreadable:
            return
        ours = self._audit.watermark
        newest = await self._canaries.newest(control)
        self._comparing = False
        if ours is None or newest is None or newest.seen is None or newest.seen <= ours:
            return
        self._notice(GapReason.OTHER_LEDGER)
        self._say(
            "The trace queue was read into another ledger since this one was written, as after a restored backup:"
            " nothing is claimed of that time"
        )
        # before the next canary takes the place of the one that proves it
        await self._step([], connected=False)

    # what goes on during a session

    async def _read(self, tap: Tap) -> None:
        settings = self._settings
        limit = 1 if self._poisoned else settings.batch_events
        looked_at = time.monotonic()
        while not self._stopping.is_set():
            contents = await tap.batch(limit, settings.batch_linger, _IDLE)
            if contents:
                self._received = True
                self._owing = True  # from here on a commit may come about, even if this is cancelled while it waits
                tap.pause()
            outcome = await self._step(contents, connected=True)
            tap.resume()
            if outcome is None:
                return
            if contents:
                await tap.acknowledge(contents[-1])
                self._owing = False
                if self._poisoned and not contents[-1].redelivered:
                    self._poisoned = False
                    return  # all has come again, and what could not be delivered is gone: on at full speed
            for queue in outcome.inspect:
                self._to_inspect.put_nowait(queue)
            self._silent = self._silent_nodes(outcome)
            if not self._silent:
                if outcome.gap is None:
                    self._mended()
            elif time.monotonic() - looked_at > settings.canary_timeout:
                looked_at = time.monotonic()
                self._arriving = bool(contents)
                self._unexplained.set()

    async def _inspect(self, inspector: Inspector) -> None:
        while True:
            found = await inspector.inspect(await self._to_inspect.get())
            self._inspections.append(found)  # not in one line with the await: a step replaces the list meanwhile

    def _counted(self, reading: Reading | None, uncounted: str | None) -> None:
        self._uncounted = uncounted
        if reading is not None:
            self._counts.append(reading)

    # canaries that do not come back

    def _silent_nodes(self, outcome: Outcome) -> frozenset[str]:
        """Return the nodes whose canaries are out for too long."""
        latest = self._clock.now() - int(self._settings.canary_timeout * 1e6)
        return frozenset(node for node, since in outcome.silent.items() if since <= latest)

    async def _explain(self, control: Control) -> None:
        """Say why canaries are out for too long; beside the reading: those who are asked may be slow to answer."""
        inspector = control.inspector()
        while True:
            await self._unexplained.wait()
            self._unexplained.clear()
            found = await inspector.inspect(self._settings.queue)
            self._queue_depth = found.ready
            silent = self._silent
            watched = len(self._endpoints) - len(self._canaries.away)
            # while one node's canaries come back in time, we are not behind
            # (by a slow line, events that the queue no longer holds are still arriving)
            if len(silent) >= watched and (found.ready or self._arriving):
                self._say("Behind: there are events that were not read yet; verdicts wait for them")
            elif silent:
                finding = await self._blindness.explain(control, sorted(silent))
                # they may have come back meanwhile; but what was found missing on the broker was missing
                if self._silent or finding.reason is not GapReason.BLIND:
                    self._take_in(finding)

    def _take_in(self, finding: Finding | None) -> None:
        if finding is None:
            return
        if finding.until_lost:
            if self._lost_at is not None:
                self._notices.append(Notice(GapReason.BLIND, self._lost_at, over=True))
        elif finding.reason is not None:
            self._notice(finding.reason, suspected=finding.suspected)
        self._say(finding.says)

    # events that cannot be delivered

    async def _remove_poison(self, control: Control) -> None:
        """Take the event that ends our connections out of the trace queue, or empty the queue where that cannot be."""
        self._at_head = False
        queue = self._settings.queue
        if self._management is not None:
            try:
                event = await asyncio.to_thread(
                    take_head, self._management, self._endpoint.vhost, queue, self._clock.now()
                )
            except (BrokerError, KeyError, TypeError) as error:
                log.warning("Could not take the event out by the management API", extra={"why": str(error)})
            else:
                self._poisoned = False
                if event is not None:
                    self._rescued.append(event)
                    await self._step([], connected=False)  # at once: until it is committed only we have it
                    self._poisoned = not cannot_be_delivered(event)  # then it was a neighbour, and the one is behind it
                if not self._poisoned:
                    log.warning("Took the event that cannot be delivered out by the management API")
                return
        await control.purge(queue)
        self._poisoned = False
        self._notice(GapReason.POISON)
        log.error(
            "An event that cannot be delivered blocked the trace queue: emptied it, and recorded a gap."
            " With broker.management only that one event would have been taken out",
            extra={"queue": queue},
        )

    # steps

    async def _step(self, contents: Sequence[Content], *, connected: bool) -> Outcome | None:
        """Have the audit take a step, however long the ledger refuses it; None when the stop came first."""
        if self._unwritten and not await self._flush():
            return None
        sent, cut = self._canaries.take()
        settled = not connected and self._settled
        step = Step(
            contents=contents,
            rescued=self._rescued,
            sent=sent,
            inspections=self._inspections,
            notices=self._notices,
            connection=Connection(connected, settled, self._broker, self._foremost_problem(), self._queue_depth),
            now=self._clock.now(),
            cut=cut,
            counts=self._counts,
            uncounted=self._uncounted,
            away=frozenset(self._canaries.away),
        )
        self._rescued, self._inspections, self._notices, self._counts = [], [], [], []
        self._unwritten = True  # should this be cancelled, the thread takes the step all the same
        try:
            outcome = await self._thread.run(lambda: self._audit.step(step))
        except LedgerDamaged:
            raise
        except LedgerError as error:
            await self._refused(error)
            # the outcome is lost with the failed step; the judge asks again for what it did not get
            return Outcome([], None, None, {}, None) if await self._flush(refused=True) else None
        self._unwritten = False
        self._canaries.seen = outcome.watermark
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
            await self._thread.run(partial(self._audit.tell, self._problem, self._clock.now()))

    def _notice(self, reason: GapReason, *, suspected: bool = False) -> None:
        self._notices.append(Notice(reason, self._clock.now(), suspected=suspected))

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not beyond a stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    # what is said: once, when it changes

    def _foremost_problem(self) -> str | None:
        """Return the one thing that `status` should tell."""
        away, refusing = self._canaries.away, self._canaries.refusing
        if self._problem is None and away:
            nodes = ", ".join(f"{node} ({why})" for node, why in away.items())
            return f"Cannot reach {nodes}: what happens through it is not seen, and nothing is claimed meanwhile"
        if self._problem is None and refusing:
            return (
                f"{', '.join(refusing)} takes no publishes (memory or disk alarm? rabbitmqctl status):"
                " no verdicts until it does"
            )
        return self._problem or self._clock.problem

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
