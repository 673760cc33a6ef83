"""The metrics, as Prometheus reads them. Counting is not done here: what was counted is put into Prometheus' words.

A counter of prometheus_client takes a lock at each event; the tally takes none, because one thread counts. So the
library is used for what it is best at, the text format, and is handed finished numbers when somebody asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from auditor.core.alerts import Survey
from auditor.core.hops import State
from auditor.core.tally import MAX_LABELS, OTHER, Histogram, Tally

CONTENT_TYPE = CONTENT_TYPE_LATEST

_Values = Mapping[tuple[str, ...], float]  # by the values of the labels

Results = Callable[[], Mapping[str, Mapping[str, int]]]
"""By recipient of alerts: how many were taken, refused, failed."""


class Metrics(Collector):
    """What `/metrics` shows."""

    def __init__(self, tally: Tally, *, version: str, survey: Callable[[], Survey], alerts: Results) -> None:
        """`survey` gives the newest look into the ledger, `alerts` the results of telling alerts."""
        self._tally = tally
        self._version = version
        self._survey = survey
        self._alerts = alerts
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names are known once there is something to show."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield _gauge("auditor_build_info", "Always 1; the version is in the label.", ["version"], {(self._version,): 1})
        yield from self._events()
        yield from self._hops()
        yield from self._orders()
        yield from self._audit()
        yield from self._exports()

    def _events(self) -> Iterator[Metric]:
        tally = self._tally
        events: _Values = {
            (vhost, kind): float(getattr(standing, kind))
            for vhost, standing in list(tally.standings.items())
            for kind in ("published", "delivered", "undecodable")
        }
        yield _counter("auditor_events", "Trace events since the ledger began.", ["vhost", "kind"], events)
        orphans: _Values = {(vhost,): float(standing.orphans) for vhost, standing in list(tally.standings.items())}
        yield _counter(
            "auditor_orphans", "Deliveries without a known publish, since the ledger began.", ["vhost"], orphans
        )
        yield _counter(
            "auditor_undecodable",
            "Trace events that could not be read, by cause.",
            ["cause"],
            {(cause,): count for cause, count in list(tally.causes.items())},
        )
        yield _counter(
            "auditor_messages",
            "Messages that were published on a flow, by sending system.",
            ["system"],
            {(system,): count for system, count in list(tally.messages.items())},
        )
        yield _counter(
            "auditor_errors",
            "Errors announced in messages, by sending system.",
            ["system"],
            {(system,): tally.errors[system] for system in list(tally.messages)},
        )

    def _hops(self) -> Iterator[Metric]:
        tally = self._tally
        yield _counter(
            "auditor_hops",
            "Hops that came into a state, each time that they did.",
            ["flow", "state", "reason"],
            {(flow, str(state), reason or ""): count for (flow, state, reason), count in list(tally.hops.items())},
        )
        yield _counter(
            "auditor_verdicts",
            "Verdicts against hops, by queue.",
            ["flow", "queue", "state", "reason"],
            {
                (flow, queue, str(state), reason or ""): count
                for (flow, queue, state, reason), count in list(tally.against.items())
            },
        )
        waits: dict[tuple[str, ...], Histogram] = {(flow,): histogram for flow, histogram in list(tally.waits.items())}
        yield _histogram(
            "auditor_hop_wait_seconds", "From a publish to its first delivery to the flow's receiver.", ["flow"], waits
        )
        against: dict[tuple[str, ...], float] = {}
        lost: dict[tuple[str, ...], float] = {}
        queues: set[str] = set()
        for group in self._survey().against:
            queue = group.queue
            if queue not in queues and len(queues) >= MAX_LABELS:
                queue = OTHER
            queues.add(queue)
            key = (group.vhost, group.flow, queue, group.state, group.reason)
            against[key] = against.get(key, 0) + group.hops
            if group.state == State.LOST:
                short = (group.vhost, group.flow, group.reason)
                lost[short] = lost.get(short, 0) + group.hops
        yield _gauge(
            "auditor_hops_against",
            "Hops with a verdict against them now that are neither acknowledged nor forgotten.",
            ["vhost", "flow", "queue", "state", "reason"],
            against,
        )
        yield _gauge("auditor_lost_messages", "Of these, the lost ones.", ["vhost", "flow", "reason"], lost)
        yield _gauge(
            "auditor_open_hops",
            "Hops of which more may be learned.",
            ["vhost"],
            {(vhost,): standing.open_hops for vhost, standing in list(tally.standings.items())},
        )

    def _orders(self) -> Iterator[Metric]:
        tally = self._tally
        yield _counter(
            "auditor_stage_entries",
            "Orders that entered a stage, by how they came: first, next, skipping, backwards; and repeated besides.",
            ["stage", "system", "way"],
            {(*key, way): count for (key, way), count in list(tally.entries.items())},
        )
        yield _histogram(
            "auditor_order_stage_seconds",
            "How long orders that have left a stage were in it.",
            ["stage", "system"],
            {key: times for key, times in list(tally.stage_times.items()) if any(times.counts)},
        )
        yield _histogram(
            "auditor_order_processing_seconds",
            "From an order's first stage to its last.",
            [],
            {(): tally.processing},
        )
        orders: dict[tuple[str, ...], float] = {}
        stuck: dict[tuple[str, ...], float] = {}
        oldest: dict[tuple[str, ...], float] = {}
        now = time.time()
        for stage in self._survey().stages[:MAX_LABELS]:
            key = (stage.stage, stage.system)
            orders[key] = orders.get(key, 0) + stage.orders
            stuck[key] = stuck.get(key, 0) + stage.stuck
            oldest[key] = max(oldest.get(key, 0), now - stage.oldest_at / 1e6)
        yield _gauge("auditor_orders", "Orders that are in a stage now.", ["stage", "system"], orders)
        yield _gauge("auditor_orders_stuck", "Of these, those too long in it.", ["stage", "system"], stuck)
        yield _gauge(
            "auditor_order_oldest_seconds", "How long the longest of these is in it.", ["stage", "system"], oldest
        )

    def _audit(self) -> Iterator[Metric]:
        tally = self._tally
        now = time.time()
        standings = list(tally.standings.items())
        yield _gauge(
            "auditor_connected",
            "1 when the broker is connected.",
            ["vhost"],
            {(vhost,): float(standing.connected) for vhost, standing in standings},
        )
        yield _gauge(
            "auditor_watermark_lag_seconds",
            "Everything up to so long ago has been seen.",
            ["vhost"],
            {
                (vhost,): max(0.0, now - standing.watermark / 1e6)
                for vhost, standing in standings
                if standing.watermark is not None
            },
        )
        yield _gauge(
            "auditor_trace_queue_messages",
            "Events in the trace queue, at the last look.",
            ["vhost"],
            {(vhost,): float(standing.queue_depth or 0) for vhost, standing in standings},
        )
        survey = self._survey()
        gaps: _Values = {
            (vhost,): seconds for vhost, seconds in [*((v, 0.0) for v, _ in standings), *survey.gap_seconds]
        }
        yield _counter("auditor_gap_seconds", "Time that was not audited since the ledger began.", ["vhost"], gaps)
        yield _histogram("auditor_commit_seconds", "How long a batch took to be written.", [], {(): tally.commits})
        yield _histogram("auditor_batch_rows", "Messages and deliveries in a batch.", [], {(): tally.batches})
        yield _gauge("auditor_ledger_bytes", "The ledger on disk, its log included.", [], {(): survey.size})
        yield _counter(
            "auditor_alerts",
            "Alerts told, each time that they were, by recipient and what came of it.",
            ["recipient", "result"],
            {
                (recipient, result): count
                for recipient, results in self._alerts().items()
                for result, count in results.items()
            },
        )

    def _exports(self) -> Iterator[Metric]:
        exports = self._survey().exports
        yield _counter(
            "auditor_exports",
            "Spans by what came of them since the ledger began: taken or refused by the receiver, or dropped before.",
            ["result"],
            {("taken",): exports.spans, ("refused",): exports.refused, ("dropped",): exports.dropped},
        )
        yield _counter(
            "auditor_invalid_trace_contexts",
            "Messages whose trace context could not be used, since the ledger began.",
            [],
            {(): exports.invalid_contexts},
        )
        yield _gauge("auditor_outbox_rows", "What waits to be exported.", [], {(): exports.waiting})
        age = 0.0 if exports.oldest_at is None else max(0.0, time.time() - exports.oldest_at / 1e6)
        yield _gauge(
            "auditor_outbox_oldest_seconds",
            "How long ago the oldest message of what waits to be exported was published.",
            [],
            {(): age},
        )


def _counter(name: str, text: str, labels: list[str], values: _Values) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, text: str, labels: list[str], values: _Values) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, labels: list[str], values: Mapping[tuple[str, ...], Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, histogram in values.items():
        counts, total = list(histogram.counts), histogram.sum
        buckets: list[tuple[str, float]] = []
        upto = 0
        for edge, count in zip((*histogram.edges, float("inf")), counts, strict=True):
            upto += count
            buckets.append(("+Inf" if edge == float("inf") else repr(float(edge)), upto))
        family.add_metric(key, buckets, total)
    return family
