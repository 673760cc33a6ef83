"""The benchmark: what auditing costs, against reading the firehose and doing nothing with it.

    python -m tests.benchmarks                      all of it, some five minutes
    python -m tests.benchmarks --only backlog       a part of it
    python -m tests.benchmarks --profile            where the auditor's CPU goes; measures nothing else

Everything runs on one private broker and in one run, since figures of different days cannot be compared. The table goes
to stdout, the medians to build/bench.json, all the rest to build/bench-details.json, and what goes on to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

from auditor.demo.broker import PrivateBroker
from auditor.demo.find import find_broker
from auditor.errors import AuditorError
from tests.benchmarks import backlog, contenders, live, picture, plugin, queries, report, scale
from tests.benchmarks.processes import PYTHON, REPOSITORY, run

PARTS = ("backlog", "live", "plugin", "scale", "queries", "tracing")

_OPEN_HOPS = (10_000, 100_000, 1_000_000)
_LEDGERS = (10_000, 1_000_000)
_LARGEST = 10_000_000  # messages; making that ledger takes longer than all the rest
_HALF_ROUNDS = 1  # nothing is near its limit there, so the runs hardly differ
_SCALING = 300.0  # seconds
_MEMORY = "4GB"  # of the broker: it must not stop the publishers while trace queues wait to be drained

_started = time.monotonic()


def say(line: str) -> None:
    """Tell on stderr what goes on."""
    sys.stderr.write(f"{time.monotonic() - _started:5.0f} s  {line}\n")
    sys.stderr.flush()


def with_broker(results: report.Results, given: argparse.Namespace) -> None:
    """Measure what needs a broker."""
    drain = contenders.build_c(say)
    broker = find_broker(quick_counters=False, progress=say)  # as it comes out of the package
    if not isinstance(broker, PrivateBroker):
        raise AuditorError("The benchmark needs a RabbitMQ of its own", hint="Install rabbitmq-server.")
    with broker:
        results.broker = broker.version
        broker.ctl("set_vm_memory_high_watermark", "absolute", _MEMORY)
        if "backlog" in given.parts:
            all_of_them = {"aio_pika": contenders.library("aio_pika"), "aiormq": contenders.library("aiormq")}
            if drain is not None:
                all_of_them["c"] = contenders.in_c(drain)
            all_of_them["auditor"] = contenders.auditor
            results.messages = given.messages
            results.drained = backlog.drain_all(
                broker, all_of_them, messages=given.messages, rounds=given.rounds, say=say
            )
        if "live" in given.parts:
            measure_live(results, broker, drain, given)
        if "plugin" in given.parts:
            if problem := plugin.enable(broker):
                say(f"the tracing plugin is left out: {problem}")
            else:
                results.plugin = [plugin.events_per_s(broker, given.messages // 2) for _ in range(2)]


def measure_live(results: report.Results, broker: PrivateBroker, drain: Path | None, given: argparse.Namespace) -> None:
    """Measure the applications at saturation, and at half of it."""
    ways = [way for way in live.WAYS if way != "drained_by_c" or drain is not None]
    say("applications at saturation")
    results.live = live.measure(
        broker, ways, drain=drain, rounds=given.live_rounds, seconds=given.seconds, rate=None, say=say
    )
    against = results.live.get("drained_by_c", results.live["unread"])
    rate = median(figures["messages_per_s"] for figures in against) / 2
    say("applications at half of it")
    results.half = live.measure(
        broker, ways, drain=drain, rounds=_HALF_ROUNDS, seconds=given.seconds, rate=rate, say=say
    )


def main() -> int:
    """Run as the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measure the auditor.", allow_abbrev=False)
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, dest="parts", help="these, and write no files"
    )
    parser.add_argument("--rounds", type=int, default=2, help="of draining, which takes longest: filling the queues")
    parser.add_argument("--live-rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=50_000, help="in the backlog; each is two events")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run of the applications")
    parser.add_argument("--largest", action="store_true", help=f"also query a ledger of {_LARGEST:,} messages")
    parser.add_argument("--picture", type=Path, help="draw build/bench.json into this SVG file")
    parser.add_argument("--profile", action="store_true", help="show where the auditor's CPU goes")
    given = parser.parse_args()
    if given.profile:
        scale.main(["10000", "--profile"])
        return 0
    build = REPOSITORY / "build"
    build.mkdir(exist_ok=True)
    results = report.Results()
    failed = False
    try:
        if {"backlog", "live", "plugin"} & set(given.parts):
            with_broker(results, given)
        if "scale" in given.parts:
            for count in _OPEN_HOPS:
                results.scale.append(json.loads(run([*PYTHON, "tests.benchmarks.scale", str(count)], _SCALING)))
                say(f"{count:,} open hops: {results.scale[-1]['cpu_us_per_event']:.1f} us of CPU an event")
        if "queries" in given.parts:
            sizes = (*_LEDGERS, _LARGEST) if given.largest else _LEDGERS
            results.queries = queries.measure(sizes, say)
        if "tracing" in given.parts:
            say("spans")
            results.tracing = json.loads(run([*PYTHON, "tests.benchmarks.tracing"], _SCALING))
    except (AuditorError, RuntimeError) as error:
        sys.stderr.write(f"bench: {error}\n")
        failed = True  # what was measured before it is shown all the same
    whole = not failed and set(given.parts) == set(PARTS)
    if whole:  # a part does not take the place of a whole run
        report.write(results, build)
    if whole and given.picture is not None:
        given.picture.write_text(picture.draw(results.bench()), encoding="utf-8")
    sys.stdout.write(results.table() + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
