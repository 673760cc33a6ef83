"""What tracing costs: in the audit, for making spans, and how fast they are exported.

    python -m tests.benchmarks.tracing

The audit's steps are run with tracing and without, and the removal of what was told is measured beside. Spans are made
from a ledger's outbox as the exporter makes them, and for comparison as the SDK would. They are sent by the exporter
itself to a receiver that is a process of its own. Prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from auditor import __version__
from auditor.core.outgoing import Key, OrderTrace, Told
from auditor.ledger.outbox import Batch, OutboxReader
from auditor.ledger.writer import Ledger
from auditor.windows.exporter import BATCH, Exporter
from auditor.windows.otlp import request, sender
from auditor.windows.spans import Builder
from tests.benchmarks import scale
from tests.benchmarks.processes import REPOSITORY
from tests.ledger.synthetic import START, traffic
from tests.ledger.synthetic import status as status_of
from tests.support.otlp import RECEIVERS, Inbox

T = TypeVar("T")

_MESSAGES = 20_000
_ROUNDS = 3
_ROWS = 1_000_000
_OPEN_HOPS = 1000
_PATIENCE = 120.0  # seconds


def measure(folder: Path) -> dict[str, Any]:
    """Return all figures."""
    return {
        "audit_us_per_message": _audit(folder),
        **_made(folder),
        "exported_spans_per_s": {protocol: round(_exported(folder, protocol)) for protocol in RECEIVERS},
    }


def _audit(folder: Path) -> dict[str, float]:
    """Return the CPU of the audit for a message with one delivery: without tracing, with it, and to remove its rows."""
    figures: dict[str, list[float]] = {"without": [], "with": [], "removing": []}
    for number in range(_ROUNDS):
        for name, rows in (("without", 0), ("with", _ROWS)):
            path = folder / f"audit-{number}-{name}.db"
            ledger = Ledger.open(path, outbox_rows=rows)
            figures[name].append(2 * scale.measure(ledger, _OPEN_HOPS, None)["cpu_us_per_event"])
            if rows:
                figures["removing"].append(_removal(ledger))
            ledger.close()
    return {name: round(median(values), 2) for name, values in figures.items()}


def _removal(ledger: Ledger) -> float:
    reader = OutboxReader(ledger.path)
    builder = _builder()
    cpu, messages = 0.0, 0
    while (batch := reader.read(BATCH)).rows:
        built = builder.build(batch.rows, batch.orders)
        before = time.thread_time()
        _remove(ledger, [row.key for row in batch.rows], built.orders, Told(spans=len(built.spans)))
        cpu += time.thread_time() - before
        messages += len({row.message for row in batch.rows})
    reader.close()
    return cpu / messages * 1e6


def _remove(ledger: Ledger, keys: Iterable[Key], orders: Iterable[OrderTrace], told: Told) -> None:
    assert ledger.outbox is not None
    with ledger.transaction("The outbox could not be written"):
        ledger.outbox.done(keys, orders, told, START)


def _made(folder: Path) -> dict[str, float]:
    """Return the CPU for a span: to read its row, to make it, to encode it, and the same by the SDK."""
    ledger = _filled(folder / "made.db")
    reader = OutboxReader(ledger.path)
    cpu = dict.fromkeys(("read", "made", "encoded", "made_and_encoded_by_sdk"), 0.0)
    spans = 0
    builder = _builder()
    while True:
        batch, took = _timed(reader.read, BATCH)
        if not batch.rows:
            break
        cpu["read"] += took
        built, took = _timed(builder.build, batch.rows, batch.orders)
        cpu["made"] += took
        cpu["encoded"] += _timed(lambda spans: _request(spans).SerializeToString(), built.spans)[1]
        cpu["made_and_encoded_by_sdk"] += _timed(_by_sdk, [_plain(span) for span in built.spans])[1]
        spans += len(built.spans)
        _remove(ledger, [row.key for row in batch.rows], built.orders, Told())
    reader.close()
    ledger.close()
    return {f"{name}_us_per_span": round(seconds / spans * 1e6, 2) for name, seconds in cpu.items()}


def _timed(call: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    """Return what a call returns, and the seconds of CPU that it took."""
    before = time.thread_time()
    value = call(*arguments)
    return value, time.thread_time() - before


def _plain(span: SpanMessage) -> dict[str, Any]:
    """Return what the SDK wants to know of a span, as it wants it."""
    trace_id = int.from_bytes(span.trace_id, "big")
    return {
        "name": span.name,
        "context": SpanContext(trace_id, int.from_bytes(span.span_id, "big"), False, TraceFlags(1)),
        "parent": SpanContext(trace_id, int.from_bytes(span.parent_span_id, "big"), False, TraceFlags(1)),
        "resource": _RESOURCE,
        "attributes": {one.key: one.value.string_value or one.value.int_value for one in span.attributes},
        "kind": SpanKind.CONSUMER,
        "start_time": span.start_time_unix_nano,
        "end_time": span.end_time_unix_nano,
    }


def _by_sdk(spans: list[dict[str, Any]]) -> bytes:
    encoded: bytes = encode_spans([ReadableSpan(**span) for span in spans]).SerializeToString()
    return encoded


_RESOURCE = Resource({"service.name": "rabbitmq"})


def _exported(folder: Path, protocol: str) -> float:
    """Return how many spans a second the exporter brings to a receiver."""
    ledger = _filled(folder / f"exported-{protocol.partition('/')[0]}.db")
    with _receiver(protocol) as endpoint:
        to = sender(protocol=protocol, endpoint=endpoint)  # type: ignore[arg-type]
        box = _Box(ledger)
        exporter = Exporter(box, _builder(), to, service="rabbitmq", version=__version__)
        began = time.perf_counter()
        exporter.start()
        try:
            while not box.empty:
                if time.perf_counter() - began > _PATIENCE:
                    raise RuntimeError("the spans were not exported in time")
                time.sleep(0.005)
                box.work()
            took = box.emptied_at - began
        finally:
            exporter.stop(0.1)
    box.reader.close()
    ledger.close()
    return box.spans / took


class _Box:
    """An outbox whose ledger belongs to this thread, as it belongs to the audit thread in the daemon."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.reader = OutboxReader(ledger.path)
        self.empty = False
        self.emptied_at = 0.0
        self.spans = 0
        self._calls: list[tuple[Callable[[], None], Any]] = []

    def read(self, limit: int) -> Batch:
        batch = self.reader.read(limit)
        if not batch.rows and not self.empty:
            self.emptied_at = time.perf_counter()
            self.empty = True
        return batch

    def done(self, keys: Iterable[Key], orders: Iterable[OrderTrace], told: Told) -> None:
        self.spans += told.spans
        finished = threading.Event()
        self._calls.append((lambda: _remove(self.ledger, keys, orders, told), finished))
        finished.wait()

    def report(self, problem: str | None) -> None:
        raise RuntimeError(problem)

    def work(self) -> None:
        while self._calls:
            call, finished = self._calls.pop(0)
            call()
            finished.set()


@contextmanager
def _receiver(protocol: str) -> Iterator[str]:
    """A receiver in a process of its own, so that it has its own interpreter's lock."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.tracing", "--receive", protocol],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def _receive(protocol: str) -> None:
    with RECEIVERS[protocol](Inbox()) as receiver:
        sys.stdout.write(f"{receiver.endpoint}\n")
        sys.stdout.flush()
        sys.stdin.read()


def _filled(path: Path) -> Ledger:
    ledger = Ledger.open(path, outbox_rows=_ROWS)
    for changes in traffic(_MESSAGES):
        ledger.commit(changes, status=status_of(updated_at=changes.messages[-1].published_at))
    return ledger


def _builder() -> Builder:
    return Builder(host="rabbit.internal", port=5672, parent="message", ratios={})


def _request(spans: list[SpanMessage]) -> Any:
    return request(spans, service="rabbitmq", version=__version__)


def main() -> None:
    """Measure, or receive."""
    if sys.argv[1:2] == ["--receive"]:
        _receive(sys.argv[2])
        return
    build = REPOSITORY / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="auditor-bench-", dir=build) as folder:
        sys.stdout.write(json.dumps(measure(Path(folder)), indent=2) + "\n")


if __name__ == "__main__":
    main()
