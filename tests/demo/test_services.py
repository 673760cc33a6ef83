"""Shop, CRM and MES as real processes on a real broker, without any auditor: the orders flow and the faults happen."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from auditor.demo import topology
from auditor.demo.display import Display
from auditor.demo.evidence import Evidence
from auditor.demo.facts import FactsReader
from auditor.demo.faults import DEAD_LETTERS, FAULTS, KEPT, make_plan, queue_of
from auditor.demo.progress import Progress
from auditor.demo.run import Options, endings, facts_file, start
from auditor.demo.server import Broker
from auditor.demo.services import SYSTEMS
from auditor.demo.topology import Place
from auditor.errors import AuditorError

SEED = 11
ORDERS = 30


@pytest.fixture
def place(broker: Broker) -> Iterator[Place]:
    """The demo's place on the broker, taken away afterwards."""
    place = Place.random()
    topology.build(broker.management, place)
    yield place
    topology.remove(broker.management, place)
    left = {user["name"] for user in broker.management.get("users")} & set(place.users.values())
    assert not left
    assert place.vhost not in {vhost["name"] for vhost in broker.management.get("vhosts")}


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Half a minute's orders in three seconds."""
    return Options(seconds=3, rate=ORDERS / 3, seed=SEED, folder=tmp_path, ledger=tmp_path / "ledger.db")


def test_all_orders_come_as_far_as_they_can(broker: Broker, place: Place, options: Options) -> None:
    plan = make_plan(SEED, ORDERS)
    said = io.StringIO()
    with ExitStack() as stack:
        systems = {name: stack.enter_context(start(name, options, broker, place)) for name in SYSTEMS}
        progress = Progress(
            plan=plan,
            facts=FactsReader({name: facts_file(name, options) for name in SYSTEMS}),
            evidence=Evidence(options.ledger),
            processes=list(systems.values()),
            endings=endings(broker.management, place, systems["mes"]),
            display=Display(said),
        )
        assert progress.until(lambda: progress.systems_ready, 30)
        systems["shop"].tell("open")
        assert progress.until(lambda: progress.traffic_done, 40), said.getvalue()
        messages = {
            queue: messages_in(broker, place, queue) for queue in ("stopped", "expired", "overflowed", "purged")
        }
    facts = progress.facts

    # what was published and received is what the plan says, message by message
    planted = plan.planted
    assert facts.stages["INITIATED"] == facts.stages["MANUFACTURING_APPROVED"] == ORDERS
    assert facts.stages["CLOSED"] == len(facts.closed) == plan.closing
    for claim in plan.claims:
        fault = FAULTS[claim.fault]
        assert facts.published[claim.message_id] == fault.copies
        if claim.fault != "overflowed":
            assert facts.received[claim.message_id, claim.queue] == fault.deliveries
    kept = [claim for claim in plan.claims if facts.received[claim.message_id, queue_of("overflowed")]]
    assert len(kept) == KEPT
    assert sum(count for (_, queue), count in facts.received.items() if queue == DEAD_LETTERS) == planted["rejected"]

    # and the queues are as the faults left them
    assert messages == {"stopped": planted["stopped"], "expired": 0, "overflowed": 0, "purged": 0}
    assert queue_of("deleted") not in {queue["name"] for queue in broker.management.get("queues", place.vhost)}
    for ending in ("resume", "purge", "delete"):
        assert ending in said.getvalue()


def test_a_system_that_may_not_log_in_says_so(broker: Broker, place: Place, options: Options) -> None:
    broker.management.delete("users", place.users["shop"])
    with start("shop", options, broker, place) as shop:
        progress = Progress(
            plan=make_plan(SEED, ORDERS),
            facts=FactsReader({}),
            evidence=Evidence(options.ledger),
            processes=[shop],
            endings={},
            display=Display(io.StringIO()),
        )
        with pytest.raises(AuditorError, match=r"(?s)shop, exit code 1.*ACCESS_REFUSED") as failure:
            progress.until(lambda: False, 30)
    assert place.passwords["shop"] not in str(failure.value)


def messages_in(broker: Broker, place: Place, line: str) -> int:
    """How many messages a line's queue holds, by the channel that knows it at once: taking them out."""
    how = {"count": 1000, "ackmode": "ack_requeue_false", "encoding": "auto"}
    return len(broker.management.post("queues", place.vhost, queue_of(line), "get", json=how))
