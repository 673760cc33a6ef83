"""What was measured: `build/bench.json`, the details behind it, and the table on stdout."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.contenders import Drained
from tests.benchmarks.live import Figures
from tests.benchmarks.queries import Answer

CONTENDERS = ("aio_pika", "aiormq", "c", "tracing_plugin", "auditor")


class Results:
    """All measurements of a run; what was left out stays empty."""

    def __init__(self) -> None:
        self.broker = ""  # its version
        self.messages = 0  # of the backlog, each of two events
        self.drained: dict[str, list[Drained]] = {}
        self.plugin: list[float] = []  # events per second
        self.live: dict[str, list[Figures]] = {}
        self.half: dict[str, list[Figures]] = {}  # live, at half of saturation
        self.scale: list[dict[str, Any]] = []
        self.queries: dict[str, dict[int, Answer]] = {}
        self.tracing: dict[str, Any] = {}

    def bench(self) -> dict[str, Any]:
        """Return the content of bench.json: medians; None for what was left out."""
        drained = {name: self.drained.get(name, []) for name in CONTENDERS}
        bytes_of = [one.ledger_bytes / self.messages for one in drained["auditor"]]
        rates = {name: _median(one.events_per_s for one in rounds) for name, rounds in drained.items()}
        return {
            "events_per_s": {**rates, "tracing_plugin": _median(self.plugin)},
            "cpu_us_per_event": {
                name: _median(one.cpu_us_per_event for one in rounds) for name, rounds in drained.items()
            },
            "peak_memory_mib": {name: _median(one.peak_mib for one in rounds) for name, rounds in drained.items()},
            "ledger_bytes_per_message": _median(bytes_of),
            "live_messages_per_s": {
                way: _median(one["messages_per_s"] for one in self.live.get(way, []))
                for way in ("off", "unread", "drained_by_c", "audited")
            },
            "queries_ms": {
                command: {str(size): round(answer.query, 2) for size, answer in sizes.items()}
                for command, sizes in self.queries.items()
            },
        }

    def details(self) -> dict[str, Any]:
        """Return what bench.json has no room for: every round, and what was measured besides."""
        return {
            "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "broker": self.broker},
            "backlog_events": 2 * self.messages,
            "drained": {
                name: [
                    {
                        "events_per_s": round(one.events_per_s),
                        "cpu_us_per_event": round(one.cpu_us_per_event, 2),
                        "peak_memory_mib": round(one.peak_mib, 1),
                    }
                    for one in rounds
                ]
                for name, rounds in self.drained.items()
            },
            "tracing_plugin_events_per_s": [round(rate) for rate in self.plugin],
            "live": self.live,
            "live_at_half_of_saturation": self.half,
            "open_hops": self.scale,
            "tracing": self.tracing,
            "commands_ms": {
                command: {str(size): round(answer.command, 1) for size, answer in sizes.items()}
                for command, sizes in self.queries.items()
            },
        }

    def table(self) -> str:
        """Return everything as a table for people."""
        return "\n".join(_lines(self))


def write(results: Results, folder: Path) -> None:
    """Write bench.json and bench-details.json."""
    for name, content in (("bench.json", results.bench()), ("bench-details.json", results.details())):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _lines(results: Results) -> Iterable[str]:
    yield f"Python {platform.python_version()}, RabbitMQ {results.broker}, {os.cpu_count()} CPUs"
    if results.drained:
        yield f"\nDraining a backlog of {2 * results.messages:,} events: median (lowest to highest)"
        yield f"  {'':<16}{'events/s':>26}{'CPU us/event':>24}{'peak MiB':>10}"
    for name, rounds in results.drained.items():
        rate = _spread([one.events_per_s for one in rounds], "{:,.0f}")
        cpu = _spread([one.cpu_us_per_event for one in rounds], "{:.1f}")
        yield f"  {name:<16}{rate:>26}{cpu:>24}{median(one.peak_mib for one in rounds):>10.0f}"
    if results.plugin:
        yield f"  {'tracing_plugin':<16}{_spread(results.plugin, '{:,.0f}'):>26}   live; its CPU is the broker's"
    if "auditor" in results.drained:
        bench = results.bench()
        rates = bench["events_per_s"]
        against = [
            f"{rates['auditor'] / rates[name]:.2f} x {name}" for name in ("aio_pika", "aiormq", "c") if rates[name]
        ]
        yield f"  auditor: {', '.join(against)}; {bench['ledger_bytes_per_message']:.0f} bytes of ledger a message"
    for title, live in (("at saturation", results.live), ("at half of it", results.half)):
        if live:
            yield f"\nThe applications, {title}: messages published and consumed"
            yield f"  {'':<16}{'messages/s':>26}{'median ms':>24}{'p99 ms':>10}"
        for way, runs in live.items():
            rate = _spread([one["messages_per_s"] for one in runs], "{:,.0f}")
            took = _spread([one["median_ms"] for one in runs], "{:.1f}")
            yield f"  {way:<16}{rate:>26}{took:>24}{median(one['p99_ms'] for one in runs):>10.1f}"
    if results.scale:
        cpu = f"{'CPU us/event':>16}{'of it metrics':>15}{'overtaking':>12}"
        yield f"\nWith hops open{cpu}{'peak MiB':>10}{'restarted':>11}"
    for one in results.scale:
        cpu = f"{one['cpu_us_per_event']:>16.1f}{one['metrics_us_per_event']:>15.2f}"
        cpu += f"{one['overtaking_cpu_us_per_event']:>12.1f}"
        memory = f"{one['peak_memory_mib']:>10.0f}{one['restarted_peak_memory_mib']:>11.0f}"
        yield f"  {one['open_hops']:>12,}{cpu}{memory}"
    if results.queries:
        yield "\nReading a ledger: ms of the query (ms of the whole command)"
    for command, sizes in results.queries.items():
        times = [f"{answer.query:.1f} ({answer.command:.0f}) at {size:,}" for size, answer in sizes.items()]
        yield f"  {command:<10}{', '.join(times)}"
    if results.tracing:
        audit = results.tracing["audit_us_per_message"]
        more = audit["with"] - audit["without"] + audit["removing"]
        yield f"\nTracing: {more:.1f} us of CPU more for a message in the audit; in the exporter, for a span:"
        for name in ("read", "made", "encoded", "made_and_encoded_by_sdk"):
            yield f"  {name.replace('_', ' '):<24}{results.tracing[f'{name}_us_per_span']:>8.1f} us"
        for protocol, rate in results.tracing["exported_spans_per_s"].items():
            yield f"  {f'exported, {protocol}':<24}{rate:>8,} spans/s"


def _spread(values: Sequence[float], form: str) -> str:
    low, middle, high = (form.format(value) for value in (min(values), median(values), max(values)))
    return f"{middle} ({low} to {high})"


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return round(median(found), 1) if found else None
