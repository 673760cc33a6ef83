"""Generated histories: what the matcher and the judge find equals what a small broker knows.

The broker (`small_broker`) lives through a history and knows what became of every copy; the audit sees no more than its
trace events, the canaries between them, and looks at its queues. Messages that nobody can tell apart (one identity) are
compared as a heap: so many were lost, not which.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import count, cycle
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.core.changes import HopRow
from auditor.core.events import Properties, Published
from auditor.core.hops import State
from auditor.core.identity import identify
from auditor.core.judge import Inspection
from tests.core.fakes import DEADLINE, ORPHAN_WAIT, SECOND, Audit, FakeLedger, make_flow
from tests.core.small_broker import MAX_DELAY, READ, WORK, SmallBroker, Truth

CANARY = SECOND
MARGIN = 2 * CANARY
REINSPECT = 5 * SECOND

# small histories, many of them; the same ones in every run, so that a red build stays red
PROFILE = settings(max_examples=600, derandomize=True, deadline=None, database=None)

EXPIRING = ("plain", "letters", "twice", "retry", "wait")

# not `again` where there are restarts: a message that died there undelivered, and comes back through the exchange it
# was published to, is then taken for its own first delivery, since it might have been published with this x-death
EXPIRING_IN_ONE_RUN = (*EXPIRING, "again")

delays = st.sampled_from([0, 0, 1000, 400_000, MAX_DELAY])
queues = st.sampled_from(WORK)
kinds = st.sampled_from(["new", "same id", "no id", "equal"])
Step = tuple[Any, ...]


def one(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Step]]:
    return st.tuples(st.just(name), *arguments).map(lambda step: [step])


publishes = st.one_of(
    one(
        "publish",
        st.sampled_from(["plain", "both", "both", "twice", "none", ""]),
        kinds,
        delays,
    ),
    one("publish", st.just("again"), st.just("new"), delays),
    one("publish", st.sampled_from(["wait", "later"]), kinds, delays),
)
deliveries = one("deliver", st.sampled_from(READ), delays)
failures = st.tuples(queues, delays).map(lambda told: [("deliver", *told), ("wait", 2), ("reject", told[0])])
consumers = st.one_of(*(one(name, st.sampled_from(READ)) for name in ("acknowledge", "requeue", "stop", "resume")))
troubles = st.one_of(
    one("purge", queues),
    one("delete", st.just("plain")),
    one("declare", st.just("plain")),
    one("wait", st.sampled_from([2, 5, 12])),
)


def eventful(seed: int, expiring: Sequence[str]) -> list[Step]:
    """Make a long history. Hypothesis keeps its lists short, and much needs a run-up: equal messages, dead letters."""
    random = Random(seed)
    history: list[Step] = []
    for _ in range(random.randint(20, 60)):
        queue, delay = random.choice(WORK), random.choice([0, 0, 1000, 400_000, MAX_DELAY])
        match random.choices(range(9), (30, 7, 15, 12, 8, 14, 10, 4, 12))[0]:
            case 0:
                key = random.choice(["plain", "both", "both", "twice", "none", ""])
                history += [("publish", key, random.choice(["new", "same id", "no id", "equal"]), delay)]
            case 1:
                history += [("publish", "again", "new", delay)]
            case 2:
                history += [("deliver", random.choice(READ), delay)]
            case 3:
                history += [("deliver", queue, delay), ("wait", 2), ("reject", queue)]
            case 4:
                history += [("wait", 2), ("expire", random.choice(expiring))]
            case 5:
                name = random.choice(["acknowledge", "acknowledge", "requeue", "requeue", "stop", "resume"])
                history += [(name, random.choice(READ))]
            case 6:  # the deliveries are read before the publish
                kind = random.choice(["new", "same id", "equal", "equal"])
                history += [("resume", "plain"), ("publish", "plain", kind, MAX_DELAY), ("deliver", "plain", 0)]
                history += random.choice([[("acknowledge", "plain")], [("requeue", "plain"), ("deliver", "plain", 0)]])
            case 8:
                kind = random.choice(["new", "same id", "no id", "equal"])
                history += random.choice(
                    [
                        [("publish", random.choice(["wait", "later"]), kind, delay)],
                        [("wait", 2), ("release",)],
                        [("wait", 2), ("expire", "wait"), ("deliver", "letters", delay)],
                    ]
                )
            case _:
                trouble: list[Step] = [
                    ("purge", queue),
                    ("delete", "plain"),
                    ("declare", "plain"),
                    ("wait", 5),
                    ("wait", 12),
                ]
                history += [random.choice(trouble)]
    return history


def histories_of(expiring: Sequence[str]) -> st.SearchStrategy[list[Step]]:
    """Histories short and long, in which the time of messages runs out in these queues."""
    lapses = st.sampled_from((*expiring, None)).map(
        lambda queue: [("wait", 2), ("expire", queue) if queue else ("release",)]
    )
    chapters = st.one_of(*[publishes] * 4, deliveries, deliveries, failures, lapses, consumers, consumers, troubles)
    short = st.lists(chapters, max_size=12).map(lambda chapters: [step for steps in chapters for step in steps])
    long = st.integers(0, 2**32).map(lambda seed: eventful(seed, expiring))
    return st.one_of(short, long, long)


histories = histories_of(EXPIRING)
histories_of_one_run = histories_of(EXPIRING_IN_ONE_RUN)


def live(history: Sequence[Step], drained: bool) -> SmallBroker:
    """Have a broker live through a history, and come to rest: dead letters are read, and the work too if `drained`."""
    broker = SmallBroker()
    numbers = count(1)
    for name, *arguments in history:
        if name == "publish":
            key, kind, delay = arguments
            properties, body, identity = message(kind, next(numbers))
            if key == "later":
                broker.publish_later(properties, body, identity, delay)
            elif key == "rolled back":
                broker.roll_back("both", properties, body, identity, delay)
            else:
                broker.publish("orders" if key else "", key or "plain", properties, body, identity, delay)
        else:
            getattr(broker, name)(*arguments)
        broker.step()
    for queue in READ:
        broker.stop(queue)
    broker.wait(MAX_DELAY / SECOND)
    while broker.queues["retry"]:
        broker.wait(MAX_DELAY / SECOND)
        broker.expire("retry")
    for queue in READ if drained else ("dead", "copy"):
        broker.resume(queue)
        while broker.queues.get(queue):
            broker.deliver(queue, 0)
            broker.acknowledge(queue)
    broker.step()
    return broker


def message(kind: str, number: int) -> tuple[Properties, bytes, str]:
    if kind == "same id":
        return Properties(message_id="same"), b"same", kind
    if kind == "equal":
        return Properties(type="tick"), b"tick", kind
    body = f"body {number}".encode()
    return Properties(message_id=None if kind == "no id" else f"m{number}"), body, body.decode()


def watch(
    broker: SmallBroker,
    cuts: Sequence[int] = (),
    restarts: Sequence[bool] = (False,),
    max_open_hops: int = 10**9,
    page: int = 10**9,
    max_recalled: int = 256,
    transactional: bool = False,
) -> FakeLedger:
    """Audit a broker's history. `cuts` are the sizes of the batches, in turn, and `restarts` tell after which of them
    to start anew; without cuts all is one batch. The last three are bounds: of what is kept in memory, and of what is
    read from the ledger."""
    ledger = FakeLedger()
    ledger.page, ledger.max_recalled = page, max_recalled
    flow = make_flow(delay_queue=lambda queue: queue == "wait", transactional=transactional)
    audit = Audit(flow, reinspect=REINSPECT, max_open_hops=max_open_hops, ledger=ledger)
    sizes, again = cycle(cuts or [10**9]), cycle(restarts)
    room = next(sizes)
    events = list(broker.trace())
    looks: list[Inspection] = []
    at = 1000 * SECOND
    rest = broker.now + DEADLINE + ORPHAN_WAIT + 4 * REINSPECT + 10 * CANARY

    def done() -> None:
        nonlocal room
        room -= 1
        if room == 0:
            room = next(sizes)
            audit.commit()
            if next(again) and at < broker.now + DEADLINE:  # later it shall come to rest: a look needs a moment
                audit.start()
                looks.clear()

    while at < rest:
        at += CANARY
        while events and events[0].received_at <= at:
            audit.see(events.pop(0))
            done()
        audit.watermark = at / SECOND
        audit.matcher.advance(at, newest=at, upcoming=None)
        for look in looks:
            audit.matcher.judge.inspected(look)
        looks.clear()
        for queue in audit.matcher.judge.due(at - MARGIN, at):
            found = broker.look(queue, at)
            ready, consumers = (found.ready, found.consumers) if found.exists else (None, None)
            looks.append(Inspection(queue, at, found.exists, ready, consumers))
        done()
    audit.commit()
    return audit.ledger


def truth_of(truth: Truth) -> str:
    if truth.unroutable:
        return "unroutable"
    if truth.died:
        return "dead_lettered"
    if truth.deliveries:
        return "had"
    if truth.held:
        return "unknown"
    return "gone" if truth.gone else "waiting"


def claim_of(hop: HopRow) -> str:
    return "had" if hop.state in (State.DELIVERED, State.LATE) else str(hop.state)


def compare(broker: SmallBroker, ledger: FakeLedger) -> None:
    """Hold the claims against the truth, by identity and queue. Where a queue still holds something, what is gone from
    it may be taken for what waits there; nothing that waits may ever be taken for gone."""
    names = {publish_identity(event): name for event, name in zip(publishes_of(broker), broker.published, strict=True)}
    known: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for truth in broker.truths:
        known[truth.identity, truth.queue][truth_of(truth)] += 1
    claimed: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for hop in ledger.hops.values():
        claimed[names[ledger.messages[hop.message].identity], hop.queue][claim_of(hop)] += 1
    assert known.keys() == claimed.keys()
    for key, truths in known.items():
        claims = claimed[key]
        for word in ("had", "dead_lettered", "unroutable", "unknown"):
            assert claims[word] == truths[word], f"{key}: {claims} for {truths}"
        assert claims["lost"] + claims["stuck"] == truths["gone"] + truths["waiting"], f"{key}: {claims} for {truths}"
        assert claims["lost"] <= truths["gone"], f"{key}: falsely accused: {claims} for {truths}"
        if not broker.queues.get(key[1]):
            assert claims["lost"] == truths["gone"], f"{key}: missed: {claims} for {truths}"


def publishes_of(broker: SmallBroker) -> list[Published]:
    return [event for event in broker.trace() if isinstance(event, Published)]


def publish_identity(event: Published) -> int:
    return identify(event.vhost, event.properties, event.body)


def exactly_once(broker: SmallBroker, ledger: FakeLedger) -> None:
    deliveries = sum(truth.deliveries for truth in broker.truths)
    assert len(ledger.messages) == len(broker.published)
    assert len(ledger.hops) == len(broker.truths)
    assert len(ledger.deliveries) == deliveries
    assert sum(hop.attempts for hop in ledger.hops.values()) == deliveries
    assert not ledger.orphans
    for (number, hop, attempt), row in ledger.deliveries.items():
        assert 1 <= attempt <= ledger.hops[number, hop].attempts
        assert row.wait > -MAX_DELAY - 1


cut_sizes = st.lists(st.integers(1, 9), min_size=1, max_size=5)
restart_choices = st.lists(st.booleans(), min_size=1, max_size=5)


@PROFILE
@given(histories, st.booleans(), cut_sizes, restart_choices)
def test_what_is_found_is_what_happened(
    history: list[Step], drained: bool, cuts: list[int], restarts: list[bool]
) -> None:
    broker = live(history, drained)
    ledger = watch(broker, cuts, restarts)
    compare(broker, ledger)
    exactly_once(broker, ledger)


@PROFILE
@given(histories_of_one_run, st.booleans(), cut_sizes)
def test_it_does_not_matter_where_batches_end(history: list[Step], drained: bool, cuts: list[int]) -> None:
    broker = live(history, drained)
    whole, cut = watch(broker), watch(broker, cuts)
    compare(broker, cut)
    assert cut.messages == whole.messages
    assert cut.hops == whole.hops
    assert cut.deliveries == whole.deliveries


@PROFILE
@given(histories, cut_sizes, restart_choices)
def test_it_does_not_matter_when_the_auditor_restarts(
    history: list[Step], cuts: list[int], restarts: list[bool]
) -> None:
    """But for reasons, since what was looked at and who overtook whom is not kept; and of equal messages, for which."""
    broker = live(history, drained=True)
    whole, cut = watch(broker), watch(broker, cuts, [*restarts, True])
    assert cut.messages == whole.messages
    assert heaps(cut) == heaps(whole)


@PROFILE
@given(histories_of_one_run, st.booleans(), cut_sizes, st.integers(1, 5), st.integers(1, 3))
def test_it_does_not_matter_how_many_hops_stay_in_memory(
    history: list[Step], drained: bool, cuts: list[int], max_open_hops: int, max_recalled: int
) -> None:
    """But for the time of verdicts: a look at a queue may be asked for a moment earlier or later."""
    broker = live(history, drained)
    whole = watch(broker, cuts)
    evicting = watch(broker, cuts, max_open_hops=max_open_hops, max_recalled=max_recalled)
    assert evicting.messages == whole.messages
    assert timeless(evicting) == timeless(whole)
    assert evicting.deliveries == whole.deliveries


@PROFILE
@given(histories, st.booleans(), cut_sizes, restart_choices, st.integers(1, 5), st.integers(10, 20))
def test_verdicts_that_wait_for_their_page_are_right_too(
    history: list[Step], drained: bool, cuts: list[int], restarts: list[bool], max_open_hops: int, page: int
) -> None:
    broker = live(history, drained)
    ledger = watch(broker, cuts, restarts, max_open_hops=max_open_hops, page=page)
    compare(broker, ledger)
    exactly_once(broker, ledger)


@PROFILE
@given(histories, st.lists(st.tuples(st.integers(0, 60), kinds, delays), min_size=1), st.booleans(), cut_sizes)
def test_of_a_flow_with_transactions_no_message_is_called_lost(
    history: list[Step], rolled_back: list[tuple[int, str, int]], drained: bool, cuts: list[int]
) -> None:
    """Not of those that were rolled back, and so of no other; and none is stuck in a queue that holds nothing."""
    history = list(history)
    for place, kind, delay in rolled_back:
        history.insert(place, ("publish", "rolled back", kind, delay))
    broker = live(history, drained)
    ledger = watch(broker, cuts, transactional=True)
    exactly_once(broker, ledger)
    claims = Counter(claim_of(hop) for hop in ledger.hops.values())
    truths = Counter(truth_of(truth) for truth in broker.truths)
    for word in ("had", "dead_lettered", "unroutable"):
        assert claims[word] == truths[word]
    assert claims["lost"] == 0
    assert claims["stuck"] + claims["unknown"] == truths["gone"] + truths["waiting"] + truths["unknown"]
    stuck = {hop.queue for hop in ledger.hops.values() if hop.state is State.STUCK}
    assert all(broker.queues.get(queue) for queue in stuck)


def timeless(ledger: FakeLedger) -> list[HopRow]:
    return [hop._replace(judged_at=None) for _, hop in sorted(ledger.hops.items())]


def heaps(ledger: FakeLedger) -> dict[tuple[int, str], Counter[str]]:
    found: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for (number, _), hop in ledger.hops.items():
        heap = found[ledger.messages[number].identity, hop.queue]
        heap[claim_of(hop)] += 1
        heap["attempts"] += hop.attempts
    return found
