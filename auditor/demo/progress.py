"""The progress of the demo: what the systems have done, what the auditor claims, and what is due next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from auditor.demo.display import Display
from auditor.demo.evidence import Evidence, Row
from auditor.demo.facts import FactsReader
from auditor.demo.faults import DEAD_LETTERS, FAULTS, Plan
from auditor.demo.processes import Process
from auditor.demo.report import Report, compare

_TICK = 0.5  # seconds between two looks

Ending = Callable[[str], None]  # puts an end to a line, given its name


class Progress:
    """Looks at everything twice a second, tells the display, and does what is due."""

    def __init__(
        self,
        *,
        plan: Plan,
        facts: FactsReader,
        evidence: Evidence,
        processes: list[Process],
        endings: Mapping[str, Ending],
        display: Display,
    ) -> None:
        self.plan = plan
        self.facts = facts.facts
        self.status: Row = {}  # the auditor's, as it last wrote it
        self._reader = facts
        self._evidence = evidence
        self._processes = processes
        self._endings = endings
        self._due = {name for name, fault in FAULTS.items() if fault.ending}
        self._display = display

    def until(self, done: Callable[[], bool], limit: float) -> bool:
        """Look until something is done, for `limit` seconds at most; tell whether it was.

        Raises AuditorError when a process of the demo ends meanwhile.
        """
        end = time.monotonic() + limit
        while True:
            self.look()
            if done():
                return True
            if time.monotonic() > end:
                return False
            time.sleep(_TICK)

    def look(self) -> None:
        """Look once."""
        for process in self._processes:
            process.check()
        self._reader.read()
        self._put_ends()
        self.status = self._evidence.status()
        self._display.verdicts(self._evidence.verdicts())
        self._display.figures(self.facts, self.status.get("open_hops"))

    def report(self) -> Report:
        """How the ledger stands against plan and facts now."""
        return compare(self.plan, self._reader.read(), self._evidence.hops())

    @property
    def systems_ready(self) -> bool:
        """Whether all systems are connected and consuming."""
        return len(self.facts.ready) == 3

    @property
    def auditor_ready(self) -> bool:
        """Whether everything that happens from now on will be seen: a canary has come back."""
        return bool(self.status.get("connected")) and self.status.get("watermark") is not None

    @property
    def traffic_done(self) -> bool:
        """Whether every order has come as far as it can."""
        return (
            len(self.facts.closed) == self.plan.closing
            and all(self.facts.published[claim.message_id] for claim in self.plan.claims)
            and all(
                self.facts.received[claim.message_id, DEAD_LETTERS]
                for claim in self.plan.claims
                if claim.fault == "rejected"
            )
            and not self._due
        )

    def _put_ends(self) -> None:
        """Resume, purge or delete a line once all messages planned for it are in its queue."""
        for name in list(self._due):
            claims = [claim for claim in self.plan.claims if claim.fault == name]
            if all(self.facts.published[claim.message_id] for claim in claims):
                self._due.remove(name)
                ending = FAULTS[name].ending
                self._display.say(f"{ending} {claims[0].queue}, which holds what was sent there")
                self._endings[ending](name)
