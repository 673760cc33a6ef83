"""What is made on the broker fits together, and no system may do more than it needs."""

from __future__ import annotations

import re

import pytest

from auditor.demo.faults import FAULTS
from auditor.demo.topology import PERMISSIONS, Place, definitions

QUEUES = {queue["name"] for queue in definitions()["queues"]}
EXCHANGES = {exchange["name"] for exchange in definitions()["exchanges"]}


def test_bindings_join_what_is_there_and_every_queue_is_bound() -> None:
    bindings = definitions()["bindings"]
    assert {binding["source"] for binding in bindings} == EXCHANGES
    assert {binding["destination"] for binding in bindings} == QUEUES


def test_approvals_for_the_unroutable_line_reach_no_queue() -> None:
    keys = {binding["routing_key"] for binding in definitions()["bindings"] if binding["source"] == "crm.orders"}
    assert keys.isdisjoint({"#", "order.approved.unroutable"})
    assert {f"order.approved.{name}" for name in FAULTS} - keys == {"order.approved.unroutable"}


def test_everything_survives_a_restart_and_both_kinds_of_queue_are_there() -> None:
    assert all(thing["durable"] for kind in ("queues", "exchanges") for thing in definitions()[kind])
    kinds = {queue["arguments"].get("x-queue-type", "classic") for queue in definitions()["queues"]}
    assert kinds == {"classic", "quorum"}


@pytest.mark.parametrize(
    ("system", "writes", "reads"),
    [
        ("shop", {"shop.orders"}, set()),
        ("crm", {"crm.orders"}, {"crm.shop-orders", "crm.mes-orders"}),
        ("mes", {"mes.orders"}, {queue for queue in QUEUES if queue.startswith("mes.")} | {"dead-letters"}),
        ("auditor", set(), set()),
    ],
)
def test_permissions_are_the_least(system: str, writes: set[str], reads: set[str]) -> None:
    configure, write, read = PERMISSIONS[system]
    everything = QUEUES | EXCHANGES
    assert {name for name in everything if re.search(configure, name)} == set()
    assert {name for name in everything if re.search(write, name)} == writes
    assert {name for name in QUEUES if re.search(read, name)} == reads


def test_two_places_share_no_name_and_no_password() -> None:
    one, other = Place.random(), Place.random()
    assert one.vhost != other.vhost
    assert {*one.users.values()}.isdisjoint(other.users.values())
    assert len({*one.passwords.values(), *other.passwords.values()}) == 2 * len(PERMISSIONS)
    assert not any(password in repr(one) for password in one.passwords.values())
