"""The choice among flows."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from auditor.core.flows import CHOICES, Flow, FlowTable
from tests.core.fakes import make_flow


def flow(name: str, exchanges: Iterable[str] = (), queues: Iterable[str] = (), dead: Iterable[str] = ()) -> Flow:
    return make_flow(
        name,
        deadline=1_000_000,
        publishes=lambda exchange, user, connection: exchange in tuple(exchanges),
        takes=lambda queue: queue in tuple(queues),
        dead_letters=lambda queue: queue in tuple(dead),
    )


ONE = flow("one", ["orders"], ["a", "b"], ["dead"])
TWO = flow("two", ["orders", "prices"], ["b", "c", "dead"])
TABLE = FlowTable([ONE, TWO])


@pytest.mark.parametrize(("exchange", "flows"), [("orders", (ONE, TWO)), ("prices", (TWO,)), ("none", ())])
def test_a_publish_may_be_on_several_flows(exchange: str, flows: tuple[Flow, ...]) -> None:
    assert TABLE.of_publish(exchange, "user", "connection") == flows
    assert TABLE.of_publish(exchange, "user", "connection") == flows  # and again, from memory


@pytest.mark.parametrize(
    ("flows", "queue", "taken"),
    [((ONE, TWO), "b", ONE), ((TWO,), "b", TWO), ((ONE, TWO), "c", TWO), ((ONE, TWO), "x", None), ((), "a", None)],
)
def test_the_first_of_the_publishs_flows_takes_the_queue(
    flows: tuple[Flow, ...], queue: str, taken: Flow | None
) -> None:
    assert TABLE.of_hop(flows, queue) == (None if taken is None else (taken, taken.deadline))


@pytest.mark.parametrize(("queue", "taken"), [("a", ONE), ("b", ONE), ("c", TWO), ("x", None)])
def test_a_queue_alone_names_its_flow(queue: str, taken: Flow | None) -> None:
    assert TABLE.of_queue(queue) is taken


def test_a_flow_that_takes_a_queue_comes_before_one_that_dead_letters_to_it() -> None:
    assert TABLE.of_queue("dead") is TWO
    assert FlowTable([ONE]).of_queue("dead") is ONE


def test_a_hop_to_a_delay_queue_has_longer() -> None:
    patient = make_flow(delay_queue=lambda queue: queue == "wait", delay_limit=5, deadline=2)
    table = FlowTable([ONE, patient])
    assert table.of_hop(table.flows, "wait") == (patient, 7)
    assert table.of_hop(table.flows, "work") == (patient, 2)
    assert (table.delay_queue("wait"), table.delay_queue("work")) == (True, False)


def test_flows_are_found_by_name() -> None:
    assert TABLE.by_name("two") is TWO
    assert TABLE.by_name("three") is None


def test_two_flows_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        FlowTable([flow("one"), flow("one")])


def test_connections_that_come_and_go_do_not_fill_the_memory() -> None:
    asked: list[str] = []

    def asking(exchange: str, user: str, connection: str) -> bool:
        asked.append(connection)
        return True

    table = FlowTable([make_flow(publishes=asking)])
    for number in range(CHOICES + 1):
        table.of_publish("", "", str(number))
    table.of_publish("", "", str(CHOICES))  # remembered
    assert len(asked) == CHOICES + 1
    table.of_publish("", "", "0")  # forgotten
    assert len(asked) == CHOICES + 2
