"""The matcher: which delivery belongs to which publish, one case a sentence.

A case is a list of events. Each is run in one batch, with a commit after every event, and with a restart after every
event: what is found must not depend on that.
"""

from __future__ import annotations

from typing import Any

import pytest

from auditor.core.events import Delivered, Published
from auditor.core.extract import Fields
from auditor.core.gaps import Gap, GapReason
from auditor.core.hops import State
from tests.core.fakes import SECOND, Audit, delivered, make_flow, published

Events = list[Published | Delivered]


@pytest.fixture(params=["one batch", "a commit after each event", "a restart after each event"])
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(how: str, events: Events, *flows: Any) -> Audit:
    audit = Audit(*flows)
    for event in events:
        audit.see(event)
        if how.startswith("a commit"):
            audit.commit()
        elif how.startswith("a restart"):
            audit.restart()
    return audit


CASES: list[tuple[str, Events, dict[tuple[int, str], str], list[int]]] = [
    # what it is, what happens, what is claimed of each hop, how often each was delivered
    ("a message is delivered", [published(0, "work"), delivered(1, "work")], {(1, "work"): "delivered"}, [1]),
    ("it may take until the deadline", [published(0, "work"), delivered(10, "work")], {(1, "work"): "delivered"}, [1]),
    ("and not longer", [published(0, "work"), delivered(10.1, "work")], {(1, "work"): "late"}, [1]),
    ("nothing has come yet", [published(0, "work")], {(1, "work"): "in_flight"}, [0]),
    (
        "every queue gets its own",
        [published(0, "a", "b", "c"), delivered(1, "c"), delivered(2, "a")],
        {(1, "a"): "delivered", (1, "b"): "in_flight", (1, "c"): "delivered"},
        [1, 0, 1],
    ),
    ("no queue was bound", [published(0)], {(1, ""): "unroutable no_queue"}, [0]),
    (
        "the default exchange names a queue whether there is one or not",
        [published(0, "work", exchange="")],
        {(1, "work"): "in_flight"},
        [0],
    ),
    ("a direct reply goes to a channel, not to a queue", [published(0, exchange="")], {}, []),
    (
        "a direct reply, where the broker gives it the name of a queue",
        [
            published(0, "amq.rabbitmq.reply-to.g1h2", exchange=""),
            delivered(0, "amq.rabbitmq.reply-to.g1h2", exchange=""),
        ],
        {},
        [],
    ),
    (
        "a direct reply besides a queue",
        [published(0, "work", "amq.rabbitmq.reply-to.g1h2")],
        {(1, "work"): "in_flight"},
        [0],
    ),
    (
        "a redelivered message was delivered before",
        [published(0, "work"), delivered(1, "work"), delivered(20, "work", again=True)],
        {(1, "work"): "delivered"},
        [2],
    ),
    (
        "the first delivery that is seen may be a redelivery",
        [published(0, "work"), delivered(1, "work", again=True)],
        {(1, "work"): "delivered"},
        [1],
    ),
    (
        "one id published twice is two messages",
        [published(0, "work"), published(1, "work"), delivered(2, "work")],
        {(1, "work"): "delivered", (2, "work"): "in_flight"},
        [1, 0],
    ),
    (
        "and both are delivered",
        [published(0, "work"), published(1, "work"), delivered(2, "work"), delivered(3, "work")],
        {(1, "work"): "delivered", (2, "work"): "delivered"},
        [1, 1],
    ),
    (
        "a redelivery does not use the second one up",
        [published(0, "work"), published(1, "work"), delivered(2, "work"), delivered(3, "work", again=True)],
        {(1, "work"): "delivered", (2, "work"): "in_flight"},
        [2, 0],
    ),
    (
        "one id with two bodies is two messages that differ",
        [published(0, "work", body=b"1"), published(1, "work", body=b"2"), delivered(2, "work", body=b"2")],
        {(1, "work"): "in_flight", (2, "work"): "delivered"},
        [0, 1],
    ),
    (
        "without an id the body tells them apart",
        [published(0, "work", id=None, body=b"1"), published(0, "work", id=None), delivered(1, "work", id=None)],
        {(1, "work"): "in_flight", (2, "work"): "delivered"},
        [0, 1],
    ),
    (
        "without an id, and equal: first in, first out",
        [published(0, "work", id=None), published(1, "work", id=None), delivered(9, "work", id=None)],
        {(1, "work"): "delivered", (2, "work"): "in_flight"},
        [1, 0],
    ),
    (
        "a delivery is read before its publish",
        [delivered(1, "work"), published(1.1, "work")],
        {(1, "work"): "delivered"},
        [1],
    ),
    (
        "so is its redelivery",
        [delivered(1, "work"), delivered(1.1, "work", again=True), published(1.2, "work"), published(1.3, "work")],
        {(1, "work"): "delivered", (2, "work"): "in_flight"},
        [2, 0],
    ),
    (
        "two equal ones are read before their publishes",
        [delivered(1, "work"), delivered(1.1, "work"), published(1.2, "work"), published(1.3, "work")],
        {(1, "work"): "delivered", (2, "work"): "delivered"},
        [1, 1],
    ),
    (
        "a delivery is read before its publish, which equals a message that was delivered long ago",
        [published(0, "work"), delivered(1, "work"), delivered(2, "work"), published(2.1, "work")],
        {(1, "work"): "delivered", (2, "work"): "delivered"},
        [1, 1],
    ),
    # dead letters
    (
        "a rejected message shows up in the dead-letter queue",
        [published(0, "work"), delivered(1, "work"), delivered(9, "dead", exchange="dlx", died=[("work", "rejected")])],
        {(1, "work"): "dead_lettered rejected", (1, "dead"): "delivered"},
        [1, 1],
    ),
    (
        "an expired one was never delivered",
        [published(0, "work"), delivered(20, "dead", exchange="dlx", died=[("work", "expired")])],
        {(1, "work"): "dead_lettered expired", (1, "dead"): "delivered"},
        [0, 1],
    ),
    (
        "a full queue drops its head",
        [published(0, "work"), delivered(1, "dead", exchange="dlx", died=[("work", "maxlen")])],
        {(1, "work"): "dead_lettered maxlen", (1, "dead"): "delivered"},
        [0, 1],
    ),
    (
        "a message is delivered too often",
        [
            published(0, "work"),
            delivered(1, "work"),
            delivered(2, "work", again=True, headers={"x-delivery-count": 1}),
            delivered(3, "dead", exchange="dlx", died=[("work", "delivery_limit")]),
        ],
        {(1, "work"): "dead_lettered delivery_limit", (1, "dead"): "delivered"},
        [2, 1],
    ),
    (
        "only the queue that the message died in is closed",
        [published(0, "a", "b"), delivered(20, "dead", exchange="dlx", died=[("b", "expired")])],
        {(1, "a"): "in_flight", (1, "b"): "dead_lettered expired", (1, "dead"): "delivered"},
        [0, 0, 1],
    ),
    (
        "a dead letter is delivered once more",
        [
            published(0, "work"),
            delivered(2, "dead", exchange="dlx", died=[("work", "expired")]),
            delivered(3, "dead", exchange="dlx", died=[("work", "expired")], again=True),
        ],
        {(1, "work"): "dead_lettered expired", (1, "dead"): "delivered"},
        [0, 2],
    ),
    (
        "a dead letter dies again, in a queue that is read",
        [
            published(0, "work"),
            delivered(2, "dead", exchange="dlx", died=[("work", "expired")]),
            delivered(3, "graveyard", exchange="dlx2", died=[("dead", "rejected"), ("work", "expired")]),
        ],
        {
            (1, "work"): "dead_lettered expired",
            (1, "dead"): "dead_lettered rejected",
            (1, "graveyard"): "delivered",
        },
        [0, 1, 1],
    ),
    (
        "a dead letter dies again, in a queue that nobody reads",
        [
            published(0, "work"),
            delivered(3, "graveyard", exchange="dlx2", died=[("dead", "expired"), ("work", "maxlen")]),
        ],
        {(1, "work"): "dead_lettered maxlen", (1, "graveyard"): "delivered"},
        [0, 1],
    ),
    (
        "a dead-letter exchange with two queues",
        [
            published(0, "work"),
            delivered(2, "dead", exchange="dlx", died=[("work", "expired")]),
            delivered(3, "copy", exchange="dlx", died=[("work", "expired")]),
        ],
        {(1, "work"): "dead_lettered expired", (1, "dead"): "delivered", (1, "copy"): "delivered"},
        [0, 1, 1],
    ),
    (
        "a dead-letter exchange with two queues, and an equal message on its way",
        [
            published(0, "work"),
            published(1, "work"),
            delivered(2, "dead", exchange="dlx", died=[("work", "expired")]),
            delivered(3, "copy", exchange="dlx", died=[("work", "expired")]),
            delivered(4, "work"),
        ],
        {
            (1, "work"): "dead_lettered expired",
            (1, "dead"): "delivered",
            (1, "copy"): "delivered",
            (2, "work"): "delivered",
        },
        [0, 1, 1, 1],
    ),
    (
        "a message dies in two queues that have one dead-letter queue",
        [
            published(0, "a", "b"),
            delivered(2, "dead", exchange="dlx", died=[("a", "expired")]),
            delivered(3, "dead", exchange="dlx", died=[("b", "maxlen")]),
        ],
        {(1, "a"): "dead_lettered expired", (1, "b"): "dead_lettered maxlen", (1, "dead"): "delivered, delivered"},
        [0, 0, 1, 1],
    ),
    (
        "work -> retry -> work, twice, through the exchange it was published to",
        [
            published(0, "work"),
            delivered(1, "work"),
            delivered(6, "work", died=[("retry", "expired"), ("work", "rejected")]),
            delivered(11, "work", died=[("retry", "expired"), ("work", "rejected")]),
        ],
        {(1, "work"): "dead_lettered rejected, dead_lettered rejected, delivered"},
        [1, 1, 1],
    ),
    (
        "a consumer publishes a dead letter again, x-death and all",
        [
            published(0, "work"),
            delivered(2, "dead", exchange="dlx", died=[("work", "expired")]),
            published(3, "work", headers={"x-death": [{"queue": "work", "reason": "expired"}]}),
            delivered(4, "work", died=[("work", "expired")]),
        ],
        {(1, "work"): "dead_lettered expired", (1, "dead"): "delivered", (2, "work"): "delivered"},
        [0, 1, 1],
    ),
    (
        "a dead letter that was published again dies again",
        [
            published(0, "work", headers={"x-death": [{"queue": "old", "reason": "expired", "count": 1}]}),
            delivered(2, "dead", exchange="dlx", died=[("work", "expired"), ("old", "expired")]),
        ],
        {(1, "work"): "dead_lettered expired", (1, "dead"): "delivered"},
        [0, 1],
    ),
    (
        "of two equal ones it is the delivered one that was rejected",
        [
            published(0, "work"),
            published(1, "work"),
            delivered(2, "work"),
            delivered(3, "dead", exchange="dlx", died=[("work", "rejected")]),
        ],
        {(1, "work"): "dead_lettered rejected", (1, "dead"): "delivered", (2, "work"): "in_flight"},
        [1, 1, 0],
    ),
    (
        "of two equal ones it is the waiting one that expired",
        [
            published(0, "work"),
            published(1, "work"),
            delivered(2, "work"),
            delivered(30, "dead", exchange="dlx", died=[("work", "expired")]),
        ],
        {(1, "work"): "delivered", (2, "work"): "dead_lettered expired", (2, "dead"): "delivered"},
        [1, 0, 1],
    ),
    (
        "an x-death that names no queue moves nobody",
        [published(0), delivered(1, "dead", exchange="dlx", died=[("", "rejected")])],
        {(1, ""): "unroutable no_queue"},
        [0],
    ),
]


@pytest.mark.parametrize(("what", "events", "claims", "attempts"), CASES, ids=[case[0] for case in CASES])
def test_case(what: str, events: Events, claims: dict[tuple[int, str], str], attempts: list[int], how: str) -> None:
    audit = run(how, events)
    assert audit.told() == claims, what
    assert audit.attempts() == attempts, what
    assert sum(attempts) == len(audit.ledger.deliveries)
    assert audit.matcher.open_hops == audit.states().count(State.IN_FLIGHT)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_message_that_expired_and_comes_back_by_the_exchange_it_was_published_to(restarted: bool) -> None:
    """After a restart it might be one that was published with this x-death, so it is taken for that."""
    audit = run("one batch", [published(0, "work")])
    if restarted:
        audit.restart()
    audit.see(delivered(5, "work", died=[("retry", "expired"), ("work", "expired")]))
    assert audit.told() == {(1, "work"): "delivered" if restarted else "dead_lettered expired, delivered"}


# orphans


def test_a_delivery_without_a_publish_is_recorded_and_says_so(how: str) -> None:
    audit = run(how, [delivered(1, "work", id="old", user="mes", again=True)])
    audit.commit()
    assert not audit.ledger.messages
    (orphan,) = audit.ledger.orphans.values()
    assert (orphan.message_id, orphan.queue, orphan.flow, orphan.user) == ("old", "work", "all", "mes")
    assert (orphan.received_at, orphan.redelivered) == (SECOND, True)


@pytest.mark.parametrize(
    ("what", "watermark", "claim"),
    [
        ("within the time it is waited for", 6, "delivered"),
        ("when it is waited for no longer, it is another message", 6.1, "in_flight"),
    ],
)
def test_a_publish_comes_after_its_delivery(how: str, what: str, watermark: float, claim: str) -> None:
    audit = run(how, [delivered(1, "work")])
    audit.advance(watermark)
    if how != "one batch":
        audit.restart()
    audit.see(published(5, "work"))
    assert audit.told() == {(1, "work"): claim}, what
    assert len(audit.ledger.orphans) == (0 if claim == "delivered" else 1)


def test_an_orphan_that_found_its_publish_at_once_was_never_one() -> None:
    audit = run("one batch", [delivered(1, "work"), published(1.1, "work")])
    changes = audit.matcher.take()
    assert (changes.orphans, changes.adopted) == ([], [])
    assert changes.deliveries[0].wait == -SECOND // 10


def test_an_orphan_of_an_earlier_batch_is_taken_back(how: str) -> None:
    audit = run("a commit after each event", [delivered(1, "work")])
    assert len(audit.ledger.orphans) == 1
    audit.see(published(1.1, "work"))
    assert audit.told() == {(1, "work"): "delivered"}
    assert not audit.ledger.orphans


def test_delivered_twice_without_the_mark_of_it(how: str) -> None:
    """Several consumers read one stream; or a broker restarted. It might also be the delivery of an equal message whose
    publish is still to come, so that is waited for first."""
    audit = run(how, [published(0, "work"), delivered(1, "work"), delivered(2, "work"), delivered(3, "work")])
    assert (audit.attempts(), len(audit.ledger.orphans)) == ([1], 2)
    audit.advance(9)
    assert (audit.attempts(), len(audit.ledger.orphans)) == ([3], 0)


def test_the_orphans_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditor.core.matcher._MAX_WAITING", 2)
    events: Events = [delivered(1, "work", id=str(n)) for n in range(3)]
    audit = run("one batch", events)
    audit.see(published(2, "work", id="0"), published(2, "work", id="2"))
    assert audit.told() == {(1, "work"): "in_flight", (2, "work"): "delivered"}
    assert [orphan.message_id for orphan in audit.ledger.orphans.values()] == ["0", "1"]


# flows


def test_what_no_flow_publishes_or_takes_is_nobodys_business(how: str) -> None:
    flow = make_flow(publishes=lambda exchange, user, connection: user == "crm", takes=lambda queue: queue == "work")
    events: Events = [
        published(0, "work", user="stranger"),
        published(0, "elsewhere"),
        delivered(1, "elsewhere"),
        delivered(1, "dead", exchange="dlx", died=[("elsewhere", "expired")]),
        published(0, "work", "elsewhere"),
    ]
    audit = run(how, events, flow)
    assert audit.told() == {(1, "work"): "in_flight"}
    assert not audit.ledger.orphans


def test_a_dead_letter_is_followed_into_a_queue_that_no_flow_knows(how: str) -> None:
    flow = make_flow(takes=lambda queue: queue == "work")
    death = delivered(2, "dead", exchange="dlx", died=[("work", "expired")])
    audit = run(how, [published(0, "work"), death], flow)
    assert audit.told() == {(1, "work"): "dead_lettered expired", (1, "dead"): "delivered"}


def test_a_dead_letter_without_a_publish_is_the_flows_in_whose_queue_it_died() -> None:
    flow = make_flow("orders", takes=lambda queue: queue == "work")
    audit = run(
        "one batch", [delivered(2, "dead", exchange="dlx", died=[("dead", "expired"), ("work", "maxlen")])], flow
    )
    audit.commit()
    assert [orphan.flow for orphan in audit.ledger.orphans.values()] == ["orders"]


def test_every_queue_is_on_the_flow_that_takes_it() -> None:
    flows = [make_flow(name, takes=lambda queue, name=name: queue == name) for name in ("crm", "mes")]
    audit = run("one batch", [published(0, "mes", "crm", "nobody")], *flows)
    audit.commit()
    assert [(hop.queue, hop.flow) for hop in audit.ledger.hops.values()] == [("mes", "mes"), ("crm", "crm")]


MES_ONLY = make_flow(receives=lambda user, connection: user == "mes")


def test_a_delivery_to_an_outsider_is_recorded_and_closes_nothing(how: str) -> None:
    audit = run(how, [published(0, "work"), delivered(1, "work", user="curious")], MES_ONLY)
    assert audit.told() == {(1, "work"): "in_flight"}
    assert audit.attempts() == [1]
    audit.judge("work", 11, ready=0)
    assert audit.told() == {(1, "work"): "lost queue_empty"}


@pytest.mark.parametrize("judged", [False, True], ids=["in time", "after the verdict"])
def test_the_receiver_gets_what_an_outsider_put_back(how: str, judged: bool) -> None:
    audit = run(how, [published(0, "work"), delivered(1, "work", user="curious")], MES_ONLY)
    if judged:
        audit.judge("work", 11, ready=0)
        audit.commit()
    audit.see(delivered(50 if judged else 2, "work", again=True))
    assert audit.told() == {(1, "work"): "late" if judged else "delivered"}
    assert audit.attempts() == [2]


def test_an_outsider_comes_before_the_publish() -> None:
    audit = run("one batch", [delivered(1, "work", user="curious"), delivered(2, "work", again=True)], MES_ONLY)
    audit.see(published(2.1, "work"))
    assert audit.told() == {(1, "work"): "delivered"}
    assert audit.attempts() == [2]


def test_an_outsider_overtakes_nothing() -> None:
    audit = Audit(MES_ONLY)
    audit.see(published(0, "work"))
    audit.advance(5)
    audit.see(published(5, "work", id="later"), delivered(6, "work", id="later", user="curious"))
    audit.judge("work", 20, ready=5)
    assert audit.told()[1, "work"] == "stuck waiting"


def test_a_hop_of_a_flow_that_was_taken_out_of_the_settings_goes_on() -> None:
    audit = run("one batch", [published(0, "work")], make_flow("old", deadline=2 * SECOND))
    audit.commit()
    again = Audit(make_flow("new"), ledger=audit.ledger)
    assert again.due(3) == ["work"]
    again.see(delivered(4, "work"))
    assert again.told() == {(1, "work"): "late"}
    assert [hop.flow for hop in again.ledger.hops.values()] == ["old"]


# dead letters, later


@pytest.mark.parametrize("found", ["lost", "stuck", "unknown"])
def test_a_dead_letter_wins_over_every_doubt(how: str, found: str) -> None:
    audit = run(how, [published(0, "work")])
    audit.judge("work", 11, **{"lost": {"ready": 0}, "stuck": {"ready": 1}, "unknown": {"ready": 0}}[found])
    if how.startswith("a commit"):
        audit.commit()
    audit.see(delivered(60, "dead", exchange="dlx", died=[("work", "expired")]))
    assert audit.told() == {(1, "work"): "dead_lettered expired", (1, "dead"): "delivered"}
    assert audit.due(1000) == []


def test_a_loss_is_not_hidden_by_the_rejection_of_an_equal_message(how: str) -> None:
    audit = run(how, [published(0, "work")])
    audit.judge("work", 11, ready=0)
    audit.see(published(12, "work"))
    if how == "a restart after each event":
        audit.restart()
    audit.see(delivered(13, "work"), delivered(14, "dead", exchange="dlx", died=[("work", "rejected")]))
    claims = audit.told()
    assert claims.pop((1, "work")) == "lost queue_empty"
    assert claims == {(2, "work"): "dead_lettered rejected", (2, "dead"): "delivered"}


def test_of_equal_ones_that_wait_the_oldest_dies_first(how: str) -> None:
    """Else the older one would stay lost, and the younger one's own delivery would find nothing."""
    audit = run(how, [published(0, "work")])
    audit.judge("work", 11, ready=0)
    if how == "a commit after each event":
        audit.commit()
    audit.see(published(12, "work"), delivered(13, "dead", exchange="dlx", died=[("work", "expired")]))
    claims = audit.told()
    assert claims == {(1, "work"): "dead_lettered expired", (1, "dead"): "delivered", (2, "work"): "in_flight"}


def test_a_stuck_one_dies_before_a_younger_one_of_which_nothing_is_known(how: str) -> None:
    audit = run(how, [published(0, "work")])
    audit.judge("work", 11, ready=1)
    audit.see(published(12, "work"))
    audit.gap(Gap(1, GapReason.BLIND, 15 * SECOND, 16 * SECOND, 16 * SECOND))
    audit.judge("work", 42, ready=2)
    if how == "a commit after each event":
        audit.commit()
    audit.see(delivered(50, "dead", exchange="dlx", died=[("work", "expired")]))
    claims = audit.told()
    assert claims == {(1, "work"): "dead_lettered expired", (1, "dead"): "delivered", (2, "work"): "unknown blind"}


def test_numbers_of_further_hops_never_collide(how: str) -> None:
    """The message is at hand twice: with an open hop, and recalled with a closed one."""
    events: Events = [
        published(0, "a", "b", "c"),
        delivered(1, "a"),
        delivered(2, "dead", exchange="dlx", died=[("a", "rejected")]),
        delivered(3, "dead", exchange="dlx", died=[("b", "expired")]),
        delivered(4, "copy", exchange="dlx", died=[("a", "rejected")]),
        delivered(5, "dead", exchange="dlx", died=[("c", "maxlen")]),
    ]
    audit = run(how, events)
    audit.commit()
    assert sorted(audit.ledger.hops) == [(1, number) for number in range(7)]
    assert [audit.ledger.hops[1, number].queue for number in range(3, 7)] == ["dead", "dead", "copy", "dead"]


def test_a_closed_hop_is_asked_of_the_ledger_once_a_batch() -> None:
    audit = run("a commit after each event", [published(0, "work"), delivered(1, "work")])
    before = audit.ledger.recalls
    for n in range(5):
        audit.see(delivered(2 + n, "work", again=True))
    assert audit.ledger.recalls == before + 1
    assert audit.attempts() == [6]


# rows


def test_what_a_message_row_says() -> None:
    flow = make_flow("crm->mes", sender="crm", extract=lambda event: Fields("m", "A-17", "SHIPPED", "u", "e"))
    audit = Audit(flow)
    headers = {"traceparent": "00-" + "1" * 500}
    event = published(3, "work", key="order.17", priority=4, headers=headers, body=b"12345")
    audit.see(event._replace(properties=event.properties._replace(correlation_id="c")))
    audit.commit()
    (row,) = audit.ledger.messages.values()
    assert row._replace(identity=0, trace_context=None)._asdict() == {
        "id": 1, "vhost": "/", "exchange": "orders", "routing_key": "order.17", "message_id": "m", "identity": 0,
        "order_id": "A-17", "stage": "SHIPPED", "sender": "crm", "user_id": "u", "error": "e", "user": "crm",
        "connection": "publisher", "node": "rabbit@one", "priority": 4, "size": 5, "trace_context": None,
        "published_at": 3 * SECOND, "time_source": "arrival", "correlation_id": "c",
    }  # fmt: skip
    assert row.trace_context is not None
    assert len(row.trace_context) == 256


@pytest.mark.parametrize("traceparent", [7, b"\xff", None, ["00-1"]])
def test_a_trace_context_of_the_wrong_kind_is_none(traceparent: Any) -> None:
    audit = run("one batch", [published(0, "work", headers={"traceparent": traceparent})])
    audit.commit()
    assert audit.ledger.messages[1].trace_context is None


def test_a_tracestate_is_kept_behind_its_traceparent() -> None:
    traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
    audit = run("one batch", [published(0, "work", headers={"traceparent": traceparent, "tracestate": "a=1 , b=2"})])
    audit.commit()
    assert audit.ledger.messages[1].trace_context == f"{traceparent} a=1,b=2"


def test_a_message_without_a_routing_key_does_no_harm() -> None:
    audit = run("one batch", [published(0, "work")._replace(routing_keys=())])
    audit.commit()
    assert audit.ledger.messages[1].routing_key == ""


def test_nothing_learned_nothing_written() -> None:
    audit = run("one batch", [published(0, "work")])
    audit.commit()
    assert not any(vars_of(audit.matcher.take()))


def vars_of(changes: Any) -> list[Any]:
    return [changes.messages, changes.hops, changes.deliveries, changes.orphans, changes.adopted]
