"""The faults of the demo, and the plan of which orders meet them.

Each fault is a production line of the MES with one defect. The CRM sends the approval of a planned order to that line,
so the fault happens in the real traffic of a real order, which then hangs there as it would in life.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from auditor.core.hops import Reason, State
from auditor.demo import orders

Verdict = tuple[State, Reason | None]

CLASSIC: Mapping[str, Any] = {}
QUORUM: Mapping[str, Any] = {"x-queue-type": "quorum"}
DEAD_LETTERS = "dead-letters"  # the exchange, and the queue behind it which the MES's clerk reads
KEPT = 2  # messages that the queue of the overflowed line keeps

_DELIVERED: tuple[Verdict, ...] = ((State.DELIVERED, None), (State.LATE, None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault: the line that has it, what is wrong there, and what the ledger has to say."""

    name: str  # of the fault and of its line
    story: str  # what happens, for people
    expected: tuple[Verdict, ...]  # any one of these is right
    queue: Mapping[str, Any] | None = None  # arguments of the line's queue; None: nobody made a queue
    idle: bool = False  # no consumer works the line
    ending: Literal["", "resume", "purge", "delete"] = ""  # what is done once all planned messages are in the queue
    copies: int = 1  # how often the CRM publishes the message
    deliveries: int = 0  # how often each planned order's messages are given to the line's consumer, all copies together
    consumer: Literal["works", "requeues once", "rejects"] = "works"

    @property
    def hangs(self) -> bool:
        """Whether the order goes no further."""
        return self.expected != _DELIVERED


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            name="unroutable",
            story="the CRM approves for a line that nobody bound a queue for",
            expected=((State.UNROUTABLE, Reason.NO_QUEUE),),
        ),
        Fault(
            name="stopped",
            story="the line's consumer has stopped, the queue keeps the message",
            queue=QUORUM,
            idle=True,
            expected=((State.STUCK, Reason.NO_CONSUMER),),
        ),
        Fault(
            name="expired",
            story="the message's time to live runs out while nobody consumes, and no dead-letter exchange is set",
            queue={"x-message-ttl": 1_000},  # milliseconds
            idle=True,
            expected=((State.LOST, Reason.QUEUE_EMPTY),),
        ),
        Fault(
            name="overflowed",
            story=f"the queue keeps {KEPT} messages and drops the oldest; later its consumer goes on",
            queue={"x-max-length": KEPT, "x-overflow": "drop-head"},
            idle=True,
            ending="resume",
            expected=((State.LOST, Reason.OVERTAKEN), (State.LOST, Reason.QUEUE_EMPTY)),
        ),
        Fault(
            name="purged",
            story="somebody purges the queue",
            queue=QUORUM,
            idle=True,
            ending="purge",
            expected=((State.LOST, Reason.QUEUE_EMPTY),),
        ),
        Fault(
            name="rejected",
            story="the consumer refuses the message; a clerk reads the dead letters",
            queue={**QUORUM, "x-dead-letter-exchange": DEAD_LETTERS},
            consumer="rejects",
            deliveries=1,
            expected=((State.DEAD_LETTERED, Reason.REJECTED),),
        ),
        Fault(
            name="deleted",
            story="somebody deletes the queue with the messages in it",
            queue=CLASSIC,
            idle=True,
            ending="delete",
            expected=((State.LOST, Reason.QUEUE_MISSING),),
        ),
        Fault(
            name="redelivered",
            story="the consumer gives the message back once and then works it: no verdict against it",
            queue=QUORUM,
            consumer="requeues once",
            deliveries=2,
            expected=_DELIVERED,
        ),
        Fault(
            name="duplicated",
            story="the CRM publishes one message id twice, both arrive: no verdict against them",
            queue=CLASSIC,
            copies=2,
            deliveries=2,
            expected=_DELIVERED,
        ),
    )
}

HEALTHY_LINES = {"1": QUORUM, "2": CLASSIC}


def queue_of(line: str) -> str:
    """The queue of a production line."""
    return f"mes.line-{line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the ledger has to say about one planned message in one queue."""

    fault: str
    order: str
    message_id: str
    queue: str  # "" for an unroutable message, as in the ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which line each order goes to, and the claims that follow."""

    seed: int
    orders: tuple[str, ...]  # order ids in the order of their start
    lines: Mapping[str, str]  # order id -> line
    claims: tuple[Claim, ...]  # of the overflowed line also those that its queue will keep: which, only the run shows

    @property
    def planted(self) -> dict[str, int]:
        """How many claims of each fault have to be found."""
        claims = Counter(claim.fault for claim in self.claims)
        return {name: claims[name] - (KEPT if name == "overflowed" else 0) for name in FAULTS}

    @property
    def closing(self) -> int:
        """How many orders go through all stages."""
        return len(self.orders) - sum(count for name, count in self.planted.items() if FAULTS[name].hangs)


FEWEST_ORDERS = len(FAULTS) + KEPT + 1  # each fault once, and one order that meets none


def make_plan(seed: int, wanted: int) -> Plan:
    """Plan at least `wanted` orders: every fault is met, by a fifth of the orders or one each, and by ten at most."""
    count = max(wanted, FEWEST_ORDERS)
    each = min(max(count // 5 // len(FAULTS), 1), 10)
    places = [name for name in FAULTS for _ in range(each)] + ["overflowed"] * KEPT
    rng = Random(seed)
    # Among the first three quarters where they fit, so that verdicts fall while there is still traffic.
    planned = rng.sample(range(1, max(count * 3 // 4, len(places)) + 1), len(places))
    lines = {orders.order_id(number): rng.choice(list(HEALTHY_LINES)) for number in range(1, count + 1)}
    lines |= {orders.order_id(number): name for number, name in zip(planned, places, strict=True)}
    return Plan(
        seed=seed,
        orders=tuple(lines),
        lines=lines,
        claims=tuple(_claim(seed, order, FAULTS[line]) for order, line in lines.items() if line in FAULTS),
    )


def _claim(seed: int, order: str, fault: Fault) -> Claim:
    return Claim(
        fault=fault.name,
        order=order,
        message_id=orders.message_id(seed, order, "MANUFACTURING_APPROVED"),
        queue="" if fault.queue is None else queue_of(fault.name),
    )
