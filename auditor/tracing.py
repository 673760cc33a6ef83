"""Tracing as the daemon has it: outbox, spans and receiver put together, from the settings."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from auditor import __version__
from auditor.core.outgoing import Key, OrderTrace, Told
from auditor.errors import LedgerError
from auditor.flows import EVERYTHING
from auditor.ledger import outbox
from auditor.ledger.writer import Ledger
from auditor.recipients import receiver
from auditor.settings import Settings
from auditor.thread import AuditThread

log = logging.getLogger(__name__)

_DRAIN = 0.2  # of the time that the daemon has to end in: what is not exported then goes out after the next start


@asynccontextmanager
async def exporting(settings: Settings, ledger: Ledger, thread: AuditThread) -> AsyncIterator[None]:
    """Export spans meanwhile, if the settings want it; SettingsError when it cannot be done as they say."""
    if not settings.tracing.enabled:
        await thread.run(lambda: _clear(ledger))
        yield
        return
    # here, because OpenTelemetry takes time and memory that an auditor without it can spare
    from auditor.windows.exporter import Exporter
    from auditor.windows.spans import Builder

    wanted = settings.tracing
    to = receiver(settings)
    address = settings.broker.addresses[0]
    builder = Builder(
        host=address.host,
        port=address.port,
        parent=wanted.parent,
        ratios={flow.name: flow.trace_ratio for flow in settings.flows or [EVERYTHING]},
    )
    box = _Outbox(ledger, thread)
    exporter = Exporter(box, builder, to, service=wanted.service_name, version=__version__)
    exporter.start()
    try:
        yield
    finally:
        await asyncio.to_thread(exporter.stop, _DRAIN * settings.daemon.shutdown_timeout)
        box.close()


class _Outbox:
    """The outbox for a thread that is not the ledger's: read beside it, written through its own."""

    def __init__(self, ledger: Ledger, thread: AuditThread) -> None:
        self._ledger = ledger
        self._thread = thread
        self._reader = outbox.OutboxReader(ledger.path)

    def read(self, limit: int) -> outbox.Batch:
        return self._reader.read(limit)

    def done(self, keys: Iterable[Key], orders: Iterable[OrderTrace], told: Told) -> None:
        def write() -> None:
            with self._ledger.transaction("The outbox could not be written"):
                assert self._ledger.outbox is not None
                self._ledger.outbox.done(keys, orders, told, time.time_ns() // 1000)

        self._thread.call(write)

    def report(self, problem: str | None) -> None:
        def write() -> None:
            with self._ledger.transaction("The outbox could not be written"):
                assert self._ledger.outbox is not None
                self._ledger.outbox.report(problem)

        self._thread.call(write)

    def close(self) -> None:
        self._reader.close()


def _clear(ledger: Ledger) -> None:
    """Give up what an auditor that did export has left: it would be kept for ever."""
    try:
        with ledger.transaction("The outbox could not be emptied") as conn:
            dropped = outbox.clear(conn)
    except LedgerError as error:
        log.warning("Could not empty the outbox", extra={"why": str(error)})
        return
    if dropped:
        log.warning("Gave up what waited to be exported, because tracing is off", extra={"rows": dropped})
