"""What the firehose and the auditor cost the applications, while these publish and consume.

Four ways, in turn: the firehose off; on, with a trace queue that nobody reads; the trace queue drained in C; audited.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from auditor.demo.server import Broker
from tests.benchmarks.backlog import make_trace_queue, switch_firehose
from tests.benchmarks.contenders import c_command, start_auditor
from tests.benchmarks.messages import QUEUE
from tests.benchmarks.processes import PYTHON, REPOSITORY, Program, run

WAYS = ("off", "unread", "drained_by_c", "audited")

_TRACE_QUEUE = "bench.live"
_READY = 30.0  # seconds for the auditor to start
_REST = 0.5  # seconds for the broker to come to rest after a queue was deleted
_LIMIT = 120.0  # seconds for one run beyond its measured time

Figures = dict[str, Any]
"""What `tests.benchmarks.traffic` prints."""


def measure(
    broker: Broker,
    ways: Sequence[str],
    *,
    drain: Path | None,
    rounds: int,
    seconds: float,
    rate: float | None,
    say: Callable[[str], None],
) -> dict[str, list[Figures]]:
    """Let the applications run for so long in each way, so many times; at most `rate` messages a second."""
    results: dict[str, list[Figures]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in (*ways[number % len(ways) :], *ways[: number % len(ways)]):
            with _way(broker, way, drain):
                command = [*PYTHON, "tests.benchmarks.traffic", "--url", broker.url(), "--seconds", str(seconds)]
                if rate is not None:
                    command += ["--rate", str(rate)]
                figures: Figures = json.loads(run(command, seconds + _LIMIT))
            results[way].append(figures)
            say(
                f"round {number + 1}: {way}: {figures['messages_per_s']:,.0f} messages/s, "
                f"each through after {figures['median_ms']:.1f} ms"
            )
    return results


@contextmanager
def _way(broker: Broker, way: str, drain: Path | None) -> Iterator[None]:
    try:
        if way == "off":
            yield
            return
        make_trace_queue(broker, _TRACE_QUEUE)
        switch_firehose(broker, on=True)
        if way == "unread":
            yield
        elif way == "drained_by_c":
            assert drain is not None
            with Program(c_command(drain, broker, _TRACE_QUEUE, 0)):
                yield
        else:
            with (
                tempfile.TemporaryDirectory(prefix="auditor-bench-", dir=REPOSITORY / "build") as folder,
                start_auditor(broker, _TRACE_QUEUE, Path(folder) / "ledger.db") as auditor,
            ):
                auditor.wait_for("Reading the firehose", _READY)
                yield
    finally:
        switch_firehose(broker, on=False)
        broker.management.delete("queues", "/", _TRACE_QUEUE)
        broker.management.delete("queues", "/", QUEUE)
        time.sleep(_REST)
