"""Messages that are held back on purpose, by a delayed exchange or in a delay queue, one case a sentence.

The deadline is ten seconds, and messages wait in the queue `wait` for a minute at most.
"""

from __future__ import annotations

from typing import Any

import pytest

from auditor.core.delays import delay_of
from auditor.core.events import Published
from auditor.core.gaps import Gap, GapReason
from auditor.core.hops import State
from tests.core.fakes import DEADLINE, SECOND, Audit, delivered, make_flow, published
from tests.core.test_matcher import Events, how, run

__all__ = ["how"]

FLOW = make_flow(delay_queue=lambda queue: queue == "wait", delay_limit=60 * SECOND)
HELD = {"x-delay": 30_000}
RELEASED = {"x-delay": -30_000}
EXPIRED = [("wait", "expired")]

CASES: list[tuple[str, Events, dict[tuple[int, str], str], list[int]]] = [
    # what it is, what happens, what is claimed of each hop, how often each was delivered
    ("nobody knows yet where it will go", [published(0, headers=HELD)], {(1, ""): "in_flight"}, [0]),
    (
        "the queue is the one that it is delivered from",
        [published(0, headers=HELD), delivered(31, "work", headers=RELEASED)],
        {(1, "work"): "delivered"},
        [1],
    ),
    (
        "the deadline counts from the end of the delay",
        [published(0, headers=HELD), delivered(40.1, "work", headers=RELEASED)],
        {(1, "work"): "late"},
        [1],
    ),
    (
        "it may be delivered again",
        [
            published(0, headers=HELD),
            delivered(31, "work", headers=RELEASED),
            delivered(32, "work", headers=RELEASED, again=True),
        ],
        {(1, "work"): "delivered"},
        [2],
    ),
    (
        "what is tried again later is a message of its own",
        [
            published(0, "work"),
            delivered(1, "work"),
            published(2, headers=HELD),
            delivered(33, "work", headers=RELEASED),
        ],
        {(1, "work"): "delivered", (2, "work"): "delivered"},
        [1, 1],
    ),
    (
        "of equal ones each delivery closes one",
        [
            published(0, headers=HELD, id=None),
            published(1, headers=HELD, id=None),
            published(2, headers=HELD, id=None),
            delivered(31, "work", headers=RELEASED, id=None),
            delivered(32, "work", headers=RELEASED, id=None),
        ],
        {(1, "work"): "delivered", (2, "work"): "delivered", (3, ""): "in_flight"},
        [1, 1, 0],
    ),
    (
        "what was not delayed is not taken for it",
        [published(0, headers=HELD), delivered(1, "work")],
        {(1, ""): "in_flight"},
        [0],
    ),
    (
        "it expires in the queue that it came to",
        [published(0, headers=HELD), delivered(50, "dead", headers=RELEASED, died=[("work", "expired")])],
        {(1, "work"): "dead_lettered expired", (1, "dead"): "delivered"},
        [0, 1],
    ),
    (
        "what was not delayed is told apart from an equal one that was",
        [
            published(0, headers=HELD, id=None),
            published(30, "work", id=None),
            delivered(31, "work", headers=RELEASED, id=None),
        ],
        {(1, "work"): "delivered", (2, "work"): "in_flight"},
        [1, 0],
    ),
    (
        "who publishes a delayed message again sends its delay along",
        [
            published(0, headers=HELD),
            delivered(31, "work", headers=RELEASED),
            published(32, "next", headers=RELEASED),
            delivered(33, "next", headers=RELEASED),
        ],
        {(1, "work"): "delivered", (2, "next"): "delivered"},
        [1, 1],
    ),
    ("a negative delay is none", [published(0, headers={"x-delay": -1})], {(1, ""): "unroutable no_queue"}, [0]),
    ("a delay queue is where it waits", [published(0, "wait")], {(1, "wait"): "in_flight"}, [0]),
    (
        "its time is up there, and it is delivered from the queue behind",
        [published(0, "wait"), delivered(30, "work", died=EXPIRED)],
        {(1, "work"): "delivered"},
        [1],
    ),
    (
        "the deadline counts from the longest time to live",
        [published(0, "wait"), delivered(70.1, "work", died=EXPIRED)],
        {(1, "work"): "late"},
        [1],
    ),
    (
        "the copy in another queue has nothing to do with it",
        [published(0, "wait", "log"), delivered(30, "work", died=EXPIRED)],
        {(1, "work"): "delivered", (1, "log"): "in_flight"},
        [1, 0],
    ),
    (
        "what a full delay queue drops is a loss",
        [published(0, "wait"), delivered(30, "work", died=[("wait", "maxlen")])],
        {(1, "wait"): "dead_lettered maxlen", (1, "work"): "delivered"},
        [0, 1],
    ),
    (
        "it is rejected from the queue behind",
        [
            published(0, "wait"),
            delivered(30, "work", died=EXPIRED),
            delivered(31, "dead", died=[("work", "rejected"), *EXPIRED]),
        ],
        {(1, "work"): "dead_lettered rejected", (1, "dead"): "delivered"},
        [1, 1],
    ),
    (
        "it expires in the queue behind",
        [published(0, "wait"), delivered(31, "dead", died=[("work", "expired"), *EXPIRED])],
        {(1, "work"): "dead_lettered expired", (1, "dead"): "delivered"},
        [0, 1],
    ),
    (
        "what is rejected into a delay queue comes back to be tried again",
        [
            published(0, "work"),
            delivered(1, "work"),
            delivered(31, "work", died=[*EXPIRED, ("work", "rejected")]),
            delivered(61, "work", died=[*EXPIRED, ("work", "rejected")]),
        ],
        {(1, "work"): "delivered"},
        [3],
    ),
    (
        "until it is rejected for good",
        [
            published(0, "work"),
            delivered(1, "work"),
            delivered(31, "work", died=[*EXPIRED, ("work", "rejected")]),
            delivered(32, "dead", died=[("work", "rejected"), *EXPIRED]),
        ],
        {(1, "work"): "dead_lettered rejected", (1, "dead"): "delivered"},
        [2, 1],
    ),
    (
        "one that expires on its way into the delay queue is a loss, though it comes back",
        [published(0, "work"), delivered(31, "work", died=[*EXPIRED, ("work", "expired")], exchange="behind")],
        {(1, "work"): "dead_lettered expired, delivered"},
        [0, 1],
    ),
]


@pytest.mark.parametrize(("what", "events", "claims", "attempts"), CASES, ids=[case[0] for case in CASES])
def test_a_delay_is_no_loss(
    what: str, events: Events, claims: dict[tuple[int, str], str], attempts: list[int], how: str
) -> None:
    audit = run(how, events, FLOW)
    assert audit.told() == claims
    assert audit.attempts() == attempts


@pytest.mark.parametrize("publish", [published(0, headers=HELD), published(0, "wait")], ids=["exchange", "queue"])
def test_it_may_go_to_several_queues(publish: Published, how: str) -> None:
    died, headers = (None, RELEASED) if publish.properties.headers else (EXPIRED, None)
    queues = ("work", "copy", "third")
    audit = run(how, [publish, *(delivered(31, queue, died=died, headers=headers) for queue in queues)], FLOW)
    # whose delivery a further queue's is is not remembered over a restart
    known = ("work",) if how.startswith("a restart") else queues
    assert audit.told() == {(1, queue): "delivered" for queue in known}
    assert [orphan.queue for orphan in audit.ledger.orphans.values()] == [q for q in queues if q not in known]


@pytest.mark.parametrize(
    ("delay", "held"),
    [
        (500, 500_000),
        (0, 0),
        (-500, 0),
        ("500", 500_000),
        (1.5, 1000),
        (float("nan"), 0),
        (float("inf"), 0),
        ("soon", 0),
        (None, 0),
        ([500], 0),
        (10**30, (2**32 - 1) * 1000),
    ],
)
def test_a_delay_is_what_the_exchange_takes_for_one(delay: Any, held: int) -> None:
    assert delay_of({"x-delay": delay}) == held
    assert delay_of({}) == 0


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize(
    ("publish", "until", "died"),
    [(published(0, headers=HELD), 40, None), (published(0, "wait"), 70, EXPIRED)],
    ids=["delayed exchange", "delay queue"],
)
def test_what_is_never_delivered_after_its_delay_is_unknown(
    publish: Any, until: float, died: Any, evicted: bool, restarted: bool
) -> None:
    audit = Audit(FLOW, max_open_hops=0 if evicted else 10)
    audit.see(publish)
    audit.commit()
    if restarted:
        audit.start()
    # nobody has to look at a queue for it
    assert audit.due(until) == []
    assert audit.states() == [State.IN_FLIGHT]
    assert audit.due(until + 0.1) == []
    (claim,) = audit.told().values()
    assert claim == "unknown delayed"
    audit.see(delivered(until + 5, "work", died=died, headers=None if died else RELEASED))
    assert audit.told() == {(1, "work"): "late"}


def test_what_could_not_be_seen_says_so() -> None:
    audit = Audit(FLOW)
    audit.see(published(0, headers=HELD))
    audit.gap(Gap(1, GapReason.BLIND, 5 * SECOND, 8 * SECOND, 8 * SECOND))
    audit.due(41)
    assert audit.told() == {(1, ""): "unknown blind"}


def test_exchanges_that_hold_nothing_back_are_known_if_the_others_are_named() -> None:
    audit = Audit(make_flow(delayed_exchange=lambda exchange: exchange == "later"))
    audit.see(published(0, headers=HELD, exchange="orders"), published(0, headers=HELD, exchange="later"))
    assert [str(state) for state in audit.states()] == ["unroutable", "in_flight"]


def test_the_flow_is_the_one_of_the_queue_that_it_comes_to() -> None:
    first = make_flow("first", takes=lambda queue: queue == "one", receives=lambda user, connection: user == "one")
    second = make_flow("second", takes=lambda queue: queue == "two", deadline=2 * DEADLINE)
    audit = Audit(first, second)
    audit.see(published(0, headers=HELD), delivered(45, "two", headers=RELEASED))
    assert audit.told() == {(1, "two"): "delivered"}
    (hop,) = audit.ledger.hops.values()
    assert (hop.flow, hop.deadline) == ("second", 30 * SECOND + 2 * DEADLINE)


def test_what_an_outsider_took_from_the_queue_it_came_to_is_missed_there() -> None:
    audit = Audit(make_flow(receives=lambda user, connection: user == "mes"))
    audit.see(published(0, headers=HELD), delivered(31, "work", headers=RELEASED, user="admin"))
    assert audit.told() == {(1, "work"): "in_flight"}
    audit.judge("work", 41)
    assert audit.told() == {(1, "work"): "lost queue_empty"}


def test_one_that_was_evicted_is_found() -> None:
    audit = Audit(FLOW, max_open_hops=1)
    for number in range(6):
        audit.see(published(number, headers=HELD, id=f"m{number}"))
        audit.commit()
    for number in range(6):
        audit.see(delivered(31 + number, "work", headers=RELEASED, id=f"m{number}"))
        if number % 2:
            audit.commit()
    assert audit.told() == {(number, "work"): "delivered" for number in range(1, 7)}
    assert audit.matcher.open_hops == 0
