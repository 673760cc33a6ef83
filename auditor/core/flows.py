"""Flows: the configured paths between two systems, and which of them an event is on.

What matches what is decided by the functions a flow is made with; here is only the choice among flows, and the memory
of choices already made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from auditor.core.extract import Extract, Fields

CHOICES = 4096  # remembered choices: enough for every exchange, user and connection at work at one time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # compared by identity: a flow is a key of the memory
class Flow:
    """A configured path between two systems."""

    name: str  # unique among the flows
    sender: str  # the publishing system; may be empty
    receiver: str  # the receiving system; may be empty
    deadline: int  # microseconds after its publish that a hop may stay undelivered
    publishes: Callable[[str, str, str], bool]  # exchange, user, connection: is such a publish on the flow?
    takes: Callable[[str], bool]  # queue: is it one that the receiver is served from?
    dead_letters: Callable[[str], bool]  # queue: is it one that the flow's dead letters are known to end in?
    delayed_exchange: Callable[[str], bool]  # exchange: may it hold messages back by their `x-delay`?
    delay_queue: Callable[[str], bool]  # queue: is it one where messages are to wait until their time is up?
    delay_limit: int  # microseconds that they wait there at most
    transactional: bool  # whether publishes may be rolled back, which nothing shows
    receives: Callable[[str, str], bool]  # user, connection: is such a consumer the receiver?
    extract: Extract


class FlowTable:
    """All flows, in the order of the settings: where several would do, the first one is taken."""

    def __init__(self, flows: Iterable[Flow]) -> None:
        """Take the flows; ValueError when two have one name."""
        self.flows = tuple(flows)
        self._names = {flow.name: flow for flow in self.flows}
        if len(self._names) != len(self.flows):
            raise ValueError("two flows have one name")
        # Bounded, because connections come and go without end.
        self._of_publish = lru_cache(CHOICES)(self._choose_publish)
        self._of_hop = lru_cache(CHOICES)(_choose_hop)
        self._of_queue = lru_cache(CHOICES)(self._choose_queue)
        self._delay_queue = lru_cache(CHOICES)(self._choose_delay_queue)

    def of_publish(self, exchange: str, user: str, connection: str) -> tuple[Flow, ...]:
        """Give the flows that a publish may be on; its queues decide among them."""
        return self._of_publish(exchange, user, connection)

    def of_hop(self, flows: tuple[Flow, ...], queue: str) -> tuple[Flow, int] | None:
        """Give the first of these flows that takes the queue, and the deadline of a hop to it, microseconds after the
        publish; None when the hop is nobody's."""
        return self._of_hop(flows, queue)

    def delay_queue(self, queue: str) -> bool:
        """Whether any flow has it for a queue where messages are to wait until their time is up."""
        return self._delay_queue(queue)

    def of_queue(self, queue: str) -> Flow | None:
        """Give the flow of a delivery whose publish is not known.

        A flow that takes the queue comes before one that only knows it as a dead-letter queue.
        """
        return self._of_queue(queue)

    def by_name(self, name: str) -> Flow | None:
        """Give the flow of this name; None when the settings have it no longer."""
        return self._names.get(name)

    def _choose_publish(self, exchange: str, user: str, connection: str) -> tuple[Flow, ...]:
        return tuple(flow for flow in self.flows if flow.publishes(exchange, user, connection))

    def _choose_queue(self, queue: str) -> Flow | None:
        for flow in self.flows:
            if flow.takes(queue) or flow.delay_queue(queue):
                return flow
        return next((flow for flow in self.flows if flow.dead_letters(queue)), None)

    def _choose_delay_queue(self, queue: str) -> bool:
        return any(flow.delay_queue(queue) for flow in self.flows)


def retired(name: str, deadline: int) -> Flow:
    """Make a stand-in for a flow that the settings have no longer: its open hops go on with the deadline they had."""
    return Flow(
        name=name,
        sender="",
        receiver="",
        deadline=deadline,
        publishes=lambda exchange, user, connection: False,
        takes=lambda queue: False,
        dead_letters=lambda queue: False,
        delayed_exchange=lambda exchange: False,
        delay_queue=lambda queue: False,
        delay_limit=0,
        transactional=False,
        receives=lambda user, connection: True,
        extract=lambda event: Fields(),
    )


def _choose_hop(flows: tuple[Flow, ...], queue: str) -> tuple[Flow, int] | None:
    for flow in flows:
        if flow.delay_queue(queue):
            return flow, flow.delay_limit + flow.deadline
        if flow.takes(queue):
            return flow, flow.deadline
    return None
