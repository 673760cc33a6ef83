"""The end of the demo: what was planned and what really happened, against what the ledger says. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from auditor.core.hops import AGAINST, Reason, State
from auditor.demo.facts import Facts
from auditor.demo.faults import FAULTS, Claim, Plan


class SeenHop(NamedTuple):
    """A hop as the ledger tells of it."""

    message: int  # number of the message in the ledger
    message_id: str | None
    order: str | None
    queue: str
    state: State
    reason: Reason | None
    attempts: int  # deliveries

    @property
    def verdict(self) -> str:
        """State and reason in one word."""
        return f"{self.state}/{self.reason}" if self.reason else str(self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Planned against found; `good` when the audit was right about everything."""

    planned: dict[str, int]  # fault -> claims that had to be found
    found: dict[str, int]  # fault -> claims that the ledger makes as expected
    missed: tuple[str, ...]  # a line for each planned claim that the ledger does not make
    false: tuple[str, ...]  # a line for each verdict that nothing justifies
    differences: tuple[str, ...]  # a line for each count in which ledger and facts differ
    published: int  # publishes, by the facts
    delivered: int  # deliveries, by the facts
    in_flight: int  # hops that the ledger has not judged yet

    @property
    def good(self) -> bool:
        """Everything planned was found, nothing else was claimed, every count agrees, nothing is left to judge."""
        wrong = self.missed or self.false or self.differences or self.in_flight
        return not wrong and self.found == self.planned


def compare(plan: Plan, facts: Facts, hops: Iterable[SeenHop]) -> Report:
    """Hold the ledger's hops against the plan and the facts."""
    seen: defaultdict[tuple[str | None, str], list[SeenHop]] = defaultdict(list)
    for hop in hops:
        seen[hop.message_id, hop.queue].append(hop)
    # Of the messages for the overflowed line those that its queue kept are given to its consumer in the end, and are
    # then ordinary deliveries. Which ones, only the run can show.
    claims = [
        claim
        for claim in plan.claims
        if claim.fault != "overflowed" or not facts.received[claim.message_id, claim.queue]
    ]
    planned = plan.planted
    found = Counter(claim.fault for claim in claims if _is_made(claim, seen[claim.message_id, claim.queue]))
    missed = [
        f"{claim.fault}: order {claim.order}, message {claim.message_id}: "
        + (", ".join(hop.verdict for hop in seen[claim.message_id, claim.queue]) or "not in the ledger")
        for claim in claims
        if not _is_made(claim, seen[claim.message_id, claim.queue])
    ]
    accused = {(claim.message_id, claim.queue) for claim in claims if FAULTS[claim.fault].hangs}
    false = [
        f"{hop.verdict}: order {hop.order}, message {hop.message_id}, queue {hop.queue or '(none)'}"
        for key, group in seen.items()
        for hop in group
        if hop.state in AGAINST | {State.UNKNOWN} and key not in accused
    ]
    return Report(
        planned=planned,
        found={name: found[name] for name in planned},
        missed=tuple(missed),
        false=tuple(false),
        differences=tuple(_differences(facts, seen)),
        published=facts.published.total(),
        delivered=facts.received.total(),
        in_flight=sum(hop.state is State.IN_FLIGHT for group in seen.values() for hop in group),
    )


def _is_made(claim: Claim, hops: list[SeenHop]) -> bool:
    """Whether the ledger makes the claim: the right verdict about each copy, and as many deliveries as there were."""
    fault = FAULTS[claim.fault]
    return (
        len(hops) == fault.copies
        and all((hop.state, hop.reason) in fault.expected for hop in hops)
        and sum(hop.attempts for hop in hops) == fault.deliveries
    )


def _differences(facts: Facts, seen: dict[tuple[str | None, str], list[SeenHop]]) -> Iterable[str]:
    messages: defaultdict[str | None, set[int]] = defaultdict(set)
    for (message_id, _), group in seen.items():
        messages[message_id].update(hop.message for hop in group)
    for each in sorted(facts.published.keys() | messages.keys(), key=str):
        real, written = facts.published[each] if each else 0, len(messages[each])
        if real != written:
            yield f"message {each}: published {real} times, {written} times in the ledger"
    for message_id, queue in sorted(facts.received.keys() | seen.keys(), key=str):
        real = facts.received[message_id, queue] if message_id else 0
        written = sum(hop.attempts for hop in seen.get((message_id, queue), ()))
        if real != written:
            yield f"message {message_id} in {queue}: delivered {real} times, {written} times in the ledger"
