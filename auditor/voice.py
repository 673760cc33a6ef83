"""The voice: looks into the ledger every few seconds, and sees to it that people hear of what is wrong there.

It reads beside the writer, decides on a thread of its own and sends from tasks of its own; the audit thread is asked
for a few small transactions only. Whatever is slow here, or away, delays nobody else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any

from auditor import __version__
from auditor.core.alerts import WATCHDOG, Alert, Board, Cause, News, Patience, Survey, Vhost, causes
from auditor.core.tally import Tally
from auditor.errors import AuditorError, LedgerError
from auditor.ledger import alerts as kept
from auditor.ledger import inbox
from auditor.ledger.queries import Reader, Row
from auditor.ledger.survey import seen
from auditor.ledger.writer import Ledger
from auditor.recipients import recipients
from auditor.settings import Settings, microseconds
from auditor.thread import AuditThread
from auditor.windows.alerts import Teller
from auditor.windows.health import readiness
from auditor.windows.http import NotServed, serve
from auditor.windows.metrics import Metrics

log = logging.getLogger(__name__)

_INTERVAL = 2.0  # seconds between two looks; a verdict is to be heard within ten
_SHARE = 10  # a look that takes long is followed by a pause this many times as long
_FIRST = 10.0  # seconds that the vhosts have, after the start, to write how they stand
_KEEPING = 5.0  # seconds that the ledger has to keep what began and ended; then it is told all the same
_EXAMPLES = 5  # in an alert's annotations
_MUTE = "Nothing was written to the ledger since the auditor started."
_IDS = (("order", "order_id"), ("message", "message_id"))


class Voice:
    """See the module's text. Make it with `open`, and cancel `run` to end it."""

    def __init__(
        self, settings: Settings, ledger: Ledger, thread: AuditThread, tally: Tally, stored: Sequence[Alert]
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._thread = thread
        self._tally = tally
        self._patience = Patience(lag=microseconds(settings.alerts.lag), gap=microseconds(settings.alerts.gap))
        self._own = tuple(settings.alerts.labels.items())
        self._board = Board(stored)  # touched by the looking thread alone
        self._alerts: Sequence[Alert] = list(stored)
        self._survey = Survey()
        self._tellers = [
            Teller(recipient, lambda: self._alerts, settings.alerts.page) for recipient in recipients(settings)
        ]
        self._metrics = Metrics(tally, version=__version__, survey=lambda: self._survey, alerts=self._results)
        self._looking = ThreadPoolExecutor(1, "voice")
        self._logged = Counter({"taken": 0})
        self._began = time.monotonic()
        self._problem: str | None = None

    @classmethod
    async def open(cls, settings: Settings, ledger: Ledger, thread: AuditThread, tally: Tally) -> Voice:
        """Take up what the ledger has kept of alerts; LedgerError when it cannot be read."""
        stored = await thread.run(partial(kept.alerts, ledger))
        return cls(settings, ledger, thread, tally, stored)

    async def run(self) -> None:
        """Look and tell until cancelled."""
        async with AsyncExitStack() as stack:
            stack.callback(self._looking.shutdown, wait=False, cancel_futures=True)
            if self._settings.http.listen:
                await self._serve(stack)
            tasks = [asyncio.create_task(one.run(), name=f"tell {one.recipient.name}") for one in self._tellers]
            for task in tasks:
                stack.callback(task.cancel)
            while True:
                began = time.monotonic()
                try:
                    await self._round()
                    self._problem = None
                except (AuditorError, OSError) as error:
                    self._report(str(error))
                except Exception as error:  # a bug here must not end the audit
                    if repr(error) != self._problem:
                        log.exception("Alerts could not be looked after")
                    self._problem = repr(error)
                await asyncio.sleep(max(_INTERVAL, _SHARE * (time.monotonic() - began)))

    async def _serve(self, stack: AsyncExitStack) -> None:
        try:
            address = await stack.enter_async_context(serve(self._settings.http.listen, self._metrics, self._ready))
        except NotServed as error:
            log.error("%s", error)
        else:
            log.info("Serving metrics and health at http://%s", address)

    async def _round(self) -> None:
        loop = asyncio.get_running_loop()
        await self._take_acknowledgements()
        news = await loop.run_in_executor(self._looking, self._look)
        if news is None:
            return
        if news:
            await self._keep(news)
        self._alerts = self._board.alerts
        if news.began or news.ended:
            if self._settings.alerts.log:
                _log(news)
                self._logged["taken"] += len(news.began) + len(news.ended)
            for teller in self._tellers:
                teller.wake()

    def _look(self) -> News | None:
        """Look into the ledger; return what began and ended, None when it is too early to say."""
        now = _now()
        settings = self._settings.alerts
        with Reader.open(self._ledger.path) as reader:
            survey = reader.survey(
                pid=os.getpid(),
                now=now,
                since=now - microseconds(settings.forget),
                gaps_since=now - self._patience.gap,
            )
            self._survey = survey
            # until all vhosts have said how they stand, alerts that go on would end
            mute = sorted({*self._settings.broker.vhosts} - {vhost.name for vhost in survey.vhosts})
            if mute and time.monotonic() - self._began < _FIRST:
                return None
            heard = [*survey.vhosts, *(Vhost(name, False, None, now, _MUTE) for name in mute)]
            found = [
                cause._replace(labels=tuple(sorted({**dict(self._own), **dict(cause.labels)}.items())))
                for cause in causes(survey._replace(vhosts=heard), now, self._patience, self._known())
            ]
            if mute:
                found += [
                    _lasting(alert)
                    for alert in self._board.alerts
                    if alert.name == "OrderStuck" and alert.ended_at is None
                ]
            return self._board.update(found, now, partial(self._annotated, reader, survey))

    def _known(self) -> set[tuple[tuple[str, str], ...]]:
        """Return what fires, without the operator's own labels."""
        own = dict(self._own)
        return {tuple(pair for pair in labels if pair[0] not in own) for labels in self._board.firing}

    def _annotated(self, reader: Reader, survey: Survey, cause: Cause) -> dict[str, str]:
        found = {"summary": cause.summary, "description": cause.description, "count": str(cause.number)}
        if cause.oldest_at is not None:
            found["oldest"] = _iso(cause.oldest_at)
        if self._settings.alerts.runbook:
            # as pages made of Markdown name their headings
            found["runbook_url"] = f"{self._settings.alerts.runbook}#{cause.name.lower()}"
        if cause.name.startswith("Auditor"):
            return found
        rows = reader.examples(cause.labels, limit=_EXAMPLES, seen=seen(list(survey.vhosts)))
        found["examples"] = "\n".join(map(_example, rows))
        traces = [row["trace_context"].split("-")[1] for row in rows if (row["trace_context"] or "").count("-") >= 3]
        if self._settings.tracing.ui_url and traces:
            found["trace"] = self._settings.tracing.ui_url.replace("{trace_id}", traces[0])
        return found

    async def _keep(self, news: News) -> None:
        """Write what began and ended, so that a restart neither repeats nor forgets."""
        changed = [*news.began, *news.ended]
        call = partial(kept.keep, self._ledger, changed, news.forgotten)
        task = asyncio.create_task(self._thread.run(call), name="keep alerts")
        await asyncio.wait([task], timeout=_KEEPING)
        if not task.done():
            self._report("The ledger takes long to keep alerts; they are told all the same")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        elif (error := task.exception()) is not None:
            if not isinstance(error, LedgerError):
                raise error
            self._report(str(error))

    async def _take_acknowledgements(self) -> None:
        """Write into the ledger what operators have put into the inbox."""
        for path in await asyncio.to_thread(inbox.waiting, self._ledger.path):
            try:
                ack = await asyncio.to_thread(inbox.read, path)
            except ValueError as error:
                log.warning("Put aside a file that is no acknowledgement", extra={"file": str(path), "why": str(error)})
                await asyncio.to_thread(inbox.refuse, path)
                continue
            number = await self._thread.run(partial(kept.begin, self._ledger, ack))
            first = 0
            while await self._thread.run(partial(kept.acknowledge, self._ledger, number, ack, first)):
                first += kept.CHUNK
            await asyncio.to_thread(path.unlink, missing_ok=True)
            log.info(
                "Acknowledged",
                extra={"who": ack.who, "hops": len(ack.hops), "orders": len(ack.entries), "note": ack.note},
            )

    def _ready(self) -> dict[str, Any]:
        vhosts, standings = self._settings.broker.vhosts, list(self._tally.standings.values())
        return readiness(vhosts, standings, _now(), self._patience.lag)

    def _results(self) -> Mapping[str, Mapping[str, int]]:
        results = {teller.recipient.name: teller.results for teller in self._tellers}
        return {**results, "log": self._logged} if self._settings.alerts.log else results

    def _report(self, problem: str) -> None:
        """Say once what is wrong."""
        if problem != self._problem:
            self._problem = problem
            log.warning("%s", problem)


def _log(news: News) -> None:
    for alert in news.began:
        level = logging.INFO if alert.name == WATCHDOG else logging.WARNING  # it fires all the time, and that is well
        log.log(level, "Alert: %s", alert.annotations["summary"], extra=dict(alert.labels))
    for alert in news.ended:
        log.info("Alert has ended: %s", alert.annotations["summary"], extra=dict(alert.labels))


def _lasting(alert: Alert) -> Cause:
    """Return the cause of an alert as it was told."""
    said = alert.annotations
    return Cause(alert.labels, said["summary"], said["description"], alert.number)


def _example(row: Row) -> str:
    parts = [
        f"order {row['order_id']}" if row["order_id"] else "",
        f"message {row['message_id']}" if row["message_id"] else "",
    ]
    return ", ".join([*filter(None, parts), _iso(row["published_at"])])


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _now() -> int:
    return time.time_ns() // 1000
