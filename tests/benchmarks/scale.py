"""What an event costs, and how much memory the auditor takes, while so many hops are open.

    python -m tests.benchmarks.scale 100000
    python -m tests.benchmarks.scale 10000 --profile

Runs the audit's steps (decode, match, commit) in this process, on contents as the tap would hand them over, so that no
broker has to be waited for. First so many messages are published and not delivered; then, with these open, others are
published to another queue and delivered, and what that costs is measured; then others to the same queue, where they
overtake the open ones. Then the audit starts anew in a process of its own, and the oldest of the open ones are
delivered. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from auditor.audit import Connection, Ids, Pace, Step, VhostAudit
from auditor.core.changes import Changes, Move
from auditor.core.stages import Orders, Recall
from auditor.core.tally import Standing, Tally, Undecodable
from auditor.daemon import tame_collector
from auditor.flows import flow_table, stage_table
from auditor.ledger.writer import Ledger
from auditor.settings import Settings, microseconds
from auditor.tap.canary import Canary
from auditor.tap.wire import Content
from tests.benchmarks.contents import Firehose
from tests.benchmarks.processes import PYTHON, REPOSITORY, peak_mib_of, run

_MEASURED = 20_000  # messages published and delivered
_BESIDE = "crm.orders"  # the queue of those that have nothing to do with the open ones
_LIMIT = 120.0  # seconds for the start anew
_SHOWN = 40  # lines of a profile


class _TimedTally(Tally):
    """A tally that measures what the metrics cost: to note the moves, which is done once more for it, and to count."""

    def __init__(self) -> None:
        super().__init__()
        self.noting = self.counting = 0.0  # seconds of CPU

    def committed(
        self, changes: Changes, standing: Standing, undecodable: Iterable[Undecodable], seconds: float
    ) -> None:
        """Count, and measure."""
        before = time.process_time()
        super().committed(changes, standing, undecodable, seconds)
        between = time.process_time()
        noted: list[Move] = []
        for flow, queue, was, state, reason, wait in changes.moves:
            noted.append((flow, queue, was, state, reason, wait))
        self.counting += between - before
        self.noting += time.process_time() - between


class _Audit:
    """The audit of one vhost, and the CPU that its steps have used."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        pace = Pace(
            canary_interval=microseconds(settings.tap.canary_interval),
            canary_timeout=microseconds(settings.tap.canary_timeout),
            orphan_wait=microseconds(settings.audit.orphan_wait),
            reinspect=microseconds(settings.audit.reinspect),
        )
        canary = Canary(exchange=settings.tap.canary_exchange, auditor=settings.tap.queue, user="auditor")
        self.tally = _TimedTally()
        self._audit = VhostAudit(
            "/",
            ledger=ledger,
            ids=Ids(ledger),
            flows=flow_table(settings),
            canary=canary,
            pace=pace,
            max_open_hops=settings.audit.max_open_hops,
            now=_now(),
            orders=Orders(stage_table(settings), Recall(ledger.open_entry, ledger.stages_of)),
            tally=self.tally,
        )
        self.cpu = 0.0

    def step(self, contents: list[Content]) -> None:
        step = Step(
            contents=contents,
            rescued=[],
            sent=[],
            inspections=[],
            notices=[],
            connection=Connection(connected=True, broker="3.10.8"),
            now=_now(),
        )
        before = time.process_time()
        self._audit.step(step)
        self.cpu += time.process_time() - before


def measure(ledger: Ledger, open_hops: int, profile: cProfile.Profile | None) -> dict[str, Any]:
    """Open so many hops, measure, and return the figures."""
    settings = Settings()
    batch = settings.tap.batch_events
    firehose, beside = Firehose(), Firehose(_BESIDE)
    audit = _Audit(ledger, settings)
    tame_collector()
    for first in range(0, open_hops, batch):
        audit.step(firehose.published(first, min(batch, open_hops - first)))
    used, of_metrics = [], []
    for number, source in enumerate((beside, firehose)):
        tally = audit.tally
        audit.cpu = tally.noting = tally.counting = 0.0
        begin = open_hops + number * _MEASURED
        for first in range(begin, begin + _MEASURED, batch):
            for events in (source.published, source.delivered):
                contents = events(first, batch)
                if profile is not None:
                    profile.enable()
                audit.step(contents)
                if profile is not None:
                    profile.disable()
                del contents  # two batches at a time would be counted as the auditor's memory
        used.append((audit.cpu - tally.noting) / (2 * _MEASURED) * 1e6)
        of_metrics.append((tally.noting + tally.counting) / (2 * _MEASURED) * 1e6)
    return {
        "open_hops": open_hops,
        "cpu_us_per_event": used[0],
        "overtaking_cpu_us_per_event": used[1],
        "metrics_us_per_event": of_metrics[0],
        "peak_memory_mib": peak_mib_of("self"),
    }


def measure_restart(ledger: Ledger, open_hops: int) -> dict[str, Any]:
    """Start with the hops that an earlier process left open, deliver the oldest, and return the figures."""
    settings = Settings()
    batch = settings.tap.batch_events
    firehose = Firehose()
    tame_collector()
    before = time.process_time()
    audit = _Audit(ledger, settings)
    start = time.process_time() - before
    drained = min(open_hops, _MEASURED)
    for first in range(0, drained, batch):
        audit.step(firehose.delivered(first, min(batch, drained - first)))
    return {
        "start_cpu_seconds": start,
        "drain_cpu_us_per_event": audit.cpu / max(drained, 1) * 1e6,
        "restarted_peak_memory_mib": peak_mib_of("self"),
    }


def _now() -> int:
    return time.time_ns() // 1000


def main(arguments: list[str] | None = None) -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description="Measure the audit while hops are open.")
    parser.add_argument("open_hops", type=int)
    parser.add_argument("--profile", action="store_true", help="show where the time goes, on stderr")
    parser.add_argument("--restart", type=Path, metavar="LEDGER", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.restart is not None:
        ledger = Ledger.open(given.restart)
        figures = measure_restart(ledger, given.open_hops)
        ledger.close()
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    build = REPOSITORY / "build"
    build.mkdir(exist_ok=True)
    profile = cProfile.Profile() if given.profile else None
    with tempfile.TemporaryDirectory(prefix="auditor-bench-", dir=build) as folder:
        path = Path(folder) / "ledger.db"
        ledger = Ledger.open(path)
        figures = measure(ledger, given.open_hops, profile)
        ledger.close()
        again = [*PYTHON, "tests.benchmarks.scale", str(given.open_hops), "--restart", str(path)]
        figures |= json.loads(run(again, _LIMIT))
    if profile is not None:
        pstats.Stats(profile, stream=sys.stderr).strip_dirs().sort_stats("tottime").print_stats(_SHOWN)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
