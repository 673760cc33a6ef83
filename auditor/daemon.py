"""The daemon: the one place that knows everyone. It puts the rooms together, in order, and takes them apart in
reverse."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Sequence
from functools import partial

from auditor import __version__, tls, tracing
from auditor.audit import Ids, Pace, VhostAudit
from auditor.blindness import Blindness
from auditor.canaries import Canaries
from auditor.clock import FOLLOW, Clock
from auditor.completeness import NARROW, NO_MANAGEMENT, Counting
from auditor.core.flows import FlowTable
from auditor.core.stages import Orders, Recall
from auditor.core.tally import Tally
from auditor.errors import LedgerDamaged, LedgerError
from auditor.flows import binding_keys, flow_table, stage_table
from auditor.ledger.retention import prune
from auditor.ledger.writer import Ledger
from auditor.settings import Settings, microseconds
from auditor.tap.canary import Canary
from auditor.tap.connection import Endpoint
from auditor.tap.management import Management
from auditor.thread import AuditThread
from auditor.voice import Voice
from auditor.watch import Watch, WatchSettings, end
from auditor.windows.notify import Notifier, notifier

log = logging.getLogger(__name__)

_RECENT = 100_000  # messages whose orders are taken into memory at the start: some tenths of a second
_COLLECT_AFTER = 50_000  # objects more than at the last collection
_CLOSING = 0.6  # of the time to end in: for the broker to answer; the rest is for the ledger


async def run(settings: Settings) -> None:
    """Audit until SIGTERM or SIGINT; a broker that is away is waited for, a ledger that cannot be opened is not.

    LedgerError says why the ledger cannot be opened. Once asked to end, the process does so within
    `daemon.shutdown_timeout`, even if that takes `os._exit`.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    ended = threading.Event()
    service = notifier()

    def stop() -> None:
        if not stopping.is_set():
            stopping.set()
            service.say(STOPPING=1)
            _bound(settings.daemon.shutdown_timeout, ended)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    tame_collector()
    log.info("Auditor %s started", __version__, extra={"ledger": str(settings.ledger.path)})
    with AuditThread() as thread:
        while not await _audit(settings, thread, stopping, service):
            pass
    log.info("Auditor stopped")
    ended.set()


async def _audit(settings: Settings, thread: AuditThread, stopping: asyncio.Event, service: Notifier) -> bool:
    """Audit until stopped; False when the ledger turned out to be damaged, and the next call will begin another."""
    call = partial(
        Ledger.open,
        settings.ledger.path,
        min_free=settings.ledger.min_free,
        vhosts=settings.broker.vhosts,
        outbox_rows=settings.tracing.outbox_rows if settings.tracing.enabled else 0,
    )
    ledger = await thread.run(call)
    if ledger.moved is not None:
        log.error(
            "The ledger is damaged: it was moved aside, a new one has begun, and a gap is recorded."
            " `sqlite3 FILE .dump` gives what can be read",
            extra={"ledger": str(ledger.path), "moved_to": str(ledger.moved.path), "why": ledger.moved.why},
        )
    damaged = False
    try:
        async with tracing.exporting(settings, ledger, thread):
            await _watch_all(settings, ledger, thread, stopping, service)
    except LedgerDamaged as error:
        log.error("The ledger is damaged", extra={"ledger": str(ledger.path), "why": error.why})
        damaged = True
    finally:
        await thread.run(partial(ledger.close, damaged=damaged))
    return stopping.is_set() or not damaged


def _bound(seconds: float, ended: threading.Event) -> None:
    """Have the process end within so many seconds, whatever it waits for: a disk, or a thread that asks an API."""

    def leave() -> None:
        if not ended.is_set():
            log.error(
                "Could not end in order in time: left as it was. Nothing is lost: what was not committed comes again"
            )
        os._exit(0 if ended.is_set() else 1)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()


def tame_collector() -> None:
    """Have Python look for garbage in cycles seldom, and not among what stays anyway.

    Events and hops make no cycles, but with the usual 700 objects each batch would set off many searches, some of them
    through every open hop: a tenth of the CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 10, 100)


async def _watch_all(
    settings: Settings, ledger: Ledger, thread: AuditThread, stopping: asyncio.Event, service: Notifier
) -> None:
    flows = flow_table(settings)
    ids = await thread.run(lambda: Ids(ledger))
    clock = Clock(await thread.run(lambda: _newest(ledger, settings.broker.vhosts)))
    orders = await thread.run(partial(_orders, settings, ledger))
    tally = Tally()
    voice = await Voice.open(settings, ledger, thread, tally)
    watches = [
        await _watch(settings, vhost, flows, ledger, ids, orders, tally, clock, thread)
        for vhost in settings.broker.vhosts
    ]
    tasks = [asyncio.create_task(watch.run(), name=f"watch {watch.vhost}") for watch in watches]
    others = [
        asyncio.create_task(_prune(settings, ledger, clock, thread, stopping), name="prune"),
        asyncio.create_task(_follow(clock), name="clock"),
        asyncio.create_task(voice.run(), name="voice"),
        asyncio.create_task(service.keep_alive(partial(thread.run, _nothing)), name="watchdog"),
    ]
    service.say(READY=1)
    stop = asyncio.create_task(stopping.wait(), name="stop")
    try:
        # a watch ends by itself only by a bug, and then the whole daemon must: half an audit is none
        await asyncio.wait([*tasks, *others, stop], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        for watch in watches:
            watch.stop()
        await asyncio.wait(tasks, timeout=_CLOSING * settings.daemon.shutdown_timeout)
        await end([*tasks, *others])
    for task in [*tasks, *others]:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    for watch in watches:
        await watch.close()
    if not stopping.is_set():
        raise RuntimeError("a watch ended though nobody had asked it to")


def _nothing() -> None:
    """What the audit thread does for the watchdog."""


def _newest(ledger: Ledger, vhosts: Sequence[str]) -> int:
    """Return the newest time that the ledger knows of: a clock that was set back must not go behind it."""
    known = [status for status in map(ledger.status, vhosts) if status is not None]
    return max((at for status in known for at in (status.updated_at, status.watermark or 0)), default=0)


async def _follow(clock: Clock) -> None:
    while True:
        await asyncio.sleep(FOLLOW)
        clock.follow()


async def _watch(
    settings: Settings,
    vhost: str,
    flows: FlowTable,
    ledger: Ledger,
    ids: Ids,
    orders: Orders,
    tally: Tally,
    clock: Clock,
    thread: AuditThread,
) -> Watch:
    tap = settings.tap
    nodes = endpoints(settings, vhost)
    canary = Canary(exchange=tap.canary_exchange, auditor=tap.queue, user=settings.broker.user)
    pace = Pace(
        canary_interval=microseconds(tap.canary_interval),
        canary_timeout=microseconds(tap.canary_timeout),
        orphan_wait=microseconds(settings.audit.orphan_wait),
        reinspect=microseconds(settings.audit.reinspect),
    )
    make = partial(
        VhostAudit,
        vhost,
        ledger=ledger,
        ids=ids,
        flows=flows,
        canary=canary,
        pace=pace,
        max_open_hops=settings.audit.max_open_hops,
        now=clock.now(),
        nodes=[node.node for node in nodes],
        max_bytes=tap.max_bytes,
        broker_timestamps=tap.broker_timestamps,
        sees_all=_sees_all(settings),
        orders=orders,
        tally=tally,
    )
    apis = managements(settings)
    return Watch(
        nodes,
        WatchSettings(
            queue=tap.queue,
            prefetch=tap.prefetch,
            max_buffered=tap.max_buffered_bytes,
            batch_events=tap.batch_events,
            batch_linger=tap.batch_linger,
            canary_timeout=tap.canary_timeout,
            reconnect_min=tap.reconnect_min,
            reconnect_max=tap.reconnect_max,
            plain=tap.consumer == "plain",
        ),
        canaries=Canaries(canary, interval=tap.canary_interval, retry=tap.reconnect_max, now=clock.now),
        blindness=Blindness(
            vhost,
            canary_exchange=tap.canary_exchange,
            queue=tap.queue,
            binding_keys=trace_keys(settings),
            max_bytes=tap.max_bytes,
            managements=apis,
            enable_firehose=tap.enable_firehose,
        ),
        audit=await thread.run(make),
        management=apis[0] if apis else None,
        clock=clock,
        thread=thread,
        counting=_counting(settings, vhost, apis[0] if apis else None, clock),
    )


def _counting(settings: Settings, vhost: str, api: Management | None, clock: Clock) -> Counting | str:
    if api is None:
        return NO_MANAGEMENT
    if not _sees_all(settings):
        return NARROW
    return Counting(api, vhost, settings.tap.canary_exchange, settings.audit.completeness_interval, clock.now)


def _sees_all(settings: Settings) -> bool:
    return bool({"#", "publish.#"} & set(trace_keys(settings)))


def _orders(settings: Settings, ledger: Ledger) -> Orders:
    orders = Orders(stage_table(settings), Recall(ledger.open_entry, ledger.stages_of))
    orders.restore(ledger.newest_entries(_RECENT))
    return orders


def endpoints(settings: Settings, vhost: str) -> list[Endpoint]:
    """Return where and as whom to connect: each node of the broker, that of `broker.url` first."""
    broker = settings.broker
    return [
        Endpoint(
            host=address.host,
            port=address.port,
            vhost=vhost,
            user=broker.user,
            password=broker.password.get_secret_value(),
            tls=tls.context(broker.ca_file, broker.cert_file, broker.key_file) if address.tls else None,
            heartbeat=round(broker.heartbeat),
            timeout=broker.connect_timeout,
        )
        for address in broker.addresses
    ]


def managements(settings: Settings) -> list[Management]:
    """Return the management API of each node, as far as they are set."""
    broker = settings.broker
    if not broker.management.url:
        return []
    return [
        Management(
            url=url,
            user=broker.management_user,
            password=broker.management_password.get_secret_value(),
            tls=tls.context(broker.management.ca_file) if url.startswith("https:") else None,
        )
        for url in (broker.management.url, *broker.management.nodes)
    ]


def trace_keys(settings: Settings) -> list[str]:
    """Return the binding keys of the trace queue: what the flows need, and the canaries."""
    keys = binding_keys(settings)
    canaries = f"publish.{settings.tap.canary_exchange}"
    return keys if {"#", "publish.#", canaries} & set(keys) else [*keys, canaries]


async def _prune(
    settings: Settings, ledger: Ledger, clock: Clock, thread: AuditThread, stopping: asyncio.Event
) -> None:
    """Keep the ledger to its age, a chunk at a time, so that batches are committed in between."""
    while True:
        await asyncio.sleep(settings.ledger.prune_interval)
        now = clock.now()
        call = partial(
            prune,
            ledger,
            healthy_before=now - microseconds(settings.ledger.keep_healthy),
            verdicts_before=now - microseconds(settings.ledger.keep_verdicts),
            give_up=stopping.is_set,
        )
        try:
            while await thread.run(call):
                pass
        except LedgerDamaged:
            raise
        except LedgerError as error:  # a full disk, say: batches fail by the same cause, and say so
            log.warning("Could not prune the ledger", extra={"why": str(error)})
