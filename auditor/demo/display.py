"""What people see of the demo, on stderr: a line for each thing that happens, and one that is always up to date."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import TextIO

from auditor.demo.facts import Facts
from auditor.demo.faults import FAULTS
from auditor.demo.orders import STAGES
from auditor.demo.report import Report, SeenHop

_EVERY = 5.0  # seconds between two lines of figures where they cannot be written over each other


class Display:
    """Talks while the demo runs. On a terminal the line of figures is rewritten, else it is repeated now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._begin = time.monotonic()
        self._figures_at = float("-inf")
        self._orders: deque[tuple[float, int]] = deque(
            maxlen=20
        )  # when, and orders begun by then: the last ten seconds
        self._told: dict[tuple[int, str], SeenHop] = {}  # message number and queue -> the hop as it was told

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._begin

    def say(self, text: str) -> None:
        """Say one line that stays."""
        self._write(f"{self.seconds:5.1f} s  {text}\n")

    def verdicts(self, hops: Iterable[SeenHop]) -> None:
        """Tell of each verdict that is new, has changed, or does not stand any more."""
        now = {(hop.message, hop.queue): hop for hop in hops}
        for key, hop in sorted(now.items()):
            if key not in self._told or self._told[key].verdict != hop.verdict:
                self.say(f"verdict: {hop.verdict:<22} {_name(hop)}")
        for key, hop in sorted(self._told.items()):
            if key not in now:
                self.say(f"verdict: {'late (delivered after all)':<22} {_name(hop)}")
        self._told = now

    def figures(self, facts: Facts, open_hops: object) -> None:
        """Show the state of affairs: orders by stage, messages, and what is on its way."""
        now = time.monotonic()
        self._orders.append((now, facts.stages["INITIATED"]))
        if not self._live and now - self._figures_at < _EVERY:
            return
        self._figures_at = now
        (before, fewer), (_, orders) = self._orders[0], self._orders[-1]
        rate = (orders - fewer) / (now - before) if now > before else 0.0
        stages = " ".join(str(facts.stages[stage]) for stage in STAGES)
        line = (
            f"{self.seconds:5.1f} s  {rate:.1f} orders/s; by stage {stages}; messages "
            f"{facts.published.total()} published, {facts.received.total()} delivered, {open_hops or 0} open"
        )
        self._write(line + ("" if self._live else "\n"))

    def trace(self, title: str, lines: Iterable[str]) -> None:
        """Show a trace: begin and duration of each span, whose it is, and below which it belongs."""
        self._write(f"\n{title}\n" + "".join(f"{line}\n" for line in lines))

    def result(self, report: Report) -> None:
        """Show the table at the end: planned against found."""
        self._write("\n")
        width = max(map(len, FAULTS))
        self._write(f"{'fault':<{width}}  planned  found  what happens\n")
        for name, planned in report.planned.items():
            mark = "" if planned == report.found[name] else "  <-- wrong"
            self._write(f"{name:<{width}}  {planned:>7}  {report.found[name]:>5}  {FAULTS[name].story}{mark}\n")
        for title, lines in (
            ("missed", report.missed),
            ("falsely claimed", report.false),
            ("ledger and reality differ", report.differences),
        ):
            self._write(f"\n{title}: {len(lines)}" + "".join(f"\n  {line}" for line in lines))
        if report.in_flight:
            self._write(f"\nwithout a verdict: {report.in_flight} hops")
        self._write("\n")

    def _write(self, text: str) -> None:
        # the line of figures, if it stands there, is cleared first
        self._stream.write(("\r\x1b[K" if self._live else "") + text)
        self._stream.flush()


def _name(hop: SeenHop) -> str:
    return f"order {hop.order}  {hop.queue or '(no queue)'}"
