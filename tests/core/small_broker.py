"""A small broker that knows the truth: what became of every copy of every message, and when the firehose said what.

Its wiring is fixed:

    exchange  key    queues
    orders    plain  plain
    orders    both   plain, letters
    orders    twice  twice
    orders    again  again
    orders    wait   wait
    orders    none
    later     -      letters, when it is released
    ""        plain  plain, whether it exists or not

A copy that dies in `letters` goes to `dead`; in `twice` to `dead` and `copy`; in `again` to `retry` and, when its time
is up there, through `orders` back to `again`. In `plain` it is gone. `wait` is a delay queue with
`letters` behind it, and `later` a delayed exchange.

Its events reach the auditor in order within one channel, and late by up to `MAX_DELAY` across channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from auditor.core.events import Delivered, Properties, Published, TraceEvent
from tests.core.fakes import SECOND

MAX_DELAY = 1_500_000  # less than the margin of two canaries, else nothing could be claimed
TICK = 400_000  # every step of the broker takes some time

BINDINGS = {
    ("orders", "plain"): ["plain"],
    ("orders", "both"): ["plain", "letters"],
    ("orders", "twice"): ["twice"],
    ("orders", "again"): ["again"],
    ("orders", "wait"): ["wait"],
    ("orders", "none"): [],
    ("", "plain"): ["plain"],
}
DEAD_LETTERS = {
    "letters": ["dead"],
    "twice": ["dead", "copy"],
    "again": ["retry"],
    "retry": ["again"],
    "wait": ["letters"],
}
WORK = ("plain", "letters", "twice", "again")
READ = (*WORK, "dead", "copy")
UNREAD = ("retry", "wait")  # nobody consumes from these
HELD = {"x-delay": 1000}
RELEASED = {"x-delay": -1000}


@dataclass(eq=False)
class Truth:
    """What really became of a hop."""

    identity: str  # equal ones cannot be told apart by anybody
    queue: str
    deliveries: int = 0
    gone: bool = False  # no longer in the queue
    died: bool = False  # and a copy of it was delivered from a dead-letter queue
    unroutable: bool = False
    held: bool = False  # held back, or not delivered since: nobody can know where it has come to
    came_to: str = ""
    rolled_back: bool = False


@dataclass(eq=False)
class Copy:
    """A message in a queue."""

    truth: Truth | None  # None for a dead letter that was not delivered yet: nobody knows of its hop
    source: list[Truth]  # the hops it died in
    properties: Properties
    exchange: str
    body: bytes
    identity: str
    put_at: int
    delivered: bool = False


@dataclass
class Look:
    """How a queue was at a time."""

    at: int
    ready: int
    consumers: int
    exists: bool


@dataclass
class SmallBroker:
    now: int = 1000 * SECOND
    truths: list[Truth] = field(default_factory=list)
    events: list[tuple[int, int, TraceEvent]] = field(default_factory=list)  # when it arrives, a number, what
    published: list[str] = field(default_factory=list)  # the identity of each publish, in order
    queues: dict[str, list[Copy]] = field(default_factory=lambda: {name: [] for name in (*READ, *UNREAD)})
    unacked: dict[str, list[Copy]] = field(default_factory=lambda: {name: [] for name in READ})
    later: list[Copy] = field(default_factory=list)  # in the delayed exchange
    stopped: set[str] = field(default_factory=set)
    looks: dict[str, list[Look]] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)  # channel -> arrival of its last event

    def __post_init__(self) -> None:
        self._note()

    # what may happen

    def wait(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)

    def publish(self, exchange: str, key: str, properties: Properties, body: bytes, identity: str, delay: int) -> None:
        bound = BINDINGS[exchange, key]
        routed = bound if exchange == "" else [queue for queue in bound if queue in self.queues]
        self.published.append(identity)
        self._trace(
            "publisher",
            delay,
            Published("/", exchange, (key,), tuple(routed), properties, body, "n", "publisher", "crm", 0),
        )
        for queue in routed or [""]:
            truth = Truth(identity, queue, unroutable=not routed, gone=queue not in self.queues, held=queue == "wait")
            self.truths.append(truth)
            if queue in self.queues:
                self.queues[queue].append(Copy(truth, [], properties, exchange, body, identity, self.now))

    def roll_back(self, key: str, properties: Properties, body: bytes, identity: str, delay: int) -> None:
        """Publish in a transaction that is rolled back: the trace shows it as if it were there."""
        self.published.append(identity)
        queues = tuple(BINDINGS["orders", key])
        self._trace(
            "publisher", delay, Published("/", "orders", (key,), queues, properties, body, "n", "publisher", "crm", 0)
        )
        self.truths += [Truth(identity, queue, gone=True, rolled_back=True) for queue in queues]

    def publish_later(self, properties: Properties, body: bytes, identity: str, delay: int) -> None:
        """Publish to the delayed exchange."""
        properties = properties._replace(headers={**properties.headers, **HELD})
        self.published.append(identity)
        self._trace(
            "publisher", delay, Published("/", "later", ("key",), (), properties, body, "n", "publisher", "crm", 0)
        )
        truth = Truth(identity, "", held=True)
        self.truths.append(truth)
        properties = properties._replace(headers={**properties.headers, **RELEASED})
        self.later.append(Copy(truth, [], properties, "later", body, identity, self.now))

    def release(self) -> None:
        """Have the delayed exchange route what it has."""
        if self.later and self._settled(self.later[0]):
            copy = self.later.pop(0)
            copy.put_at = self.now
            self.queues["letters"].append(copy)

    def deliver(self, queue: str, delay: int) -> None:
        """Give the head of a queue to its consumer."""
        if queue in self.stopped or not self.queues.get(queue):
            return
        copy = self.queues[queue].pop(0)
        if copy.truth is None:
            copy.truth = Truth(copy.identity, queue)
            self.truths.append(copy.truth)
            for truth in copy.source:
                truth.died = True
                if truth.held:
                    truth.held, truth.queue = False, truth.came_to
        if copy.truth.held:
            copy.truth.held, copy.truth.queue = False, queue
        copy.truth.deliveries += 1
        self._trace(
            f"consumer of {queue}",
            delay,
            Delivered(
                "/", queue, copy.exchange, ("key",), copy.delivered, copy.properties, copy.body, "n", "c", "mes", 0
            ),
        )
        copy.delivered = True
        self.unacked[queue].append(copy)

    def acknowledge(self, queue: str) -> None:
        for copy in self.unacked[queue][:1]:
            self.unacked[queue].remove(copy)
            if copy.truth is not None:
                copy.truth.gone = True

    def requeue(self, queue: str) -> None:
        """Have a consumer give everything back, to where it was."""
        if queue in self.queues:
            self.queues[queue][:0] = self.unacked[queue]
            self.unacked[queue].clear()

    def reject(self, queue: str) -> None:
        for copy in self.unacked[queue][:1]:
            if self._settled(copy):
                self.unacked[queue].remove(copy)
                self._die(copy, queue, "rejected")

    def expire(self, queue: str) -> None:
        """Have the time of a queue's head run out. One that was delivered before is spared: that it was the waiting one
        of two equal messages would be all that anybody could tell."""
        copies = self.queues.get(queue)
        if copies and not copies[0].delivered and self._settled(copies[0]):
            self._die(copies.pop(0), queue, "expired")

    def stop(self, queue: str) -> None:
        self.requeue(queue)
        self.stopped.add(queue)

    def resume(self, queue: str) -> None:
        self.stopped.discard(queue)

    def purge(self, queue: str) -> None:
        for copy in self.queues.get(queue, ()):
            if copy.truth is not None:
                copy.truth.gone = True
        if queue in self.queues:
            self.queues[queue].clear()

    def delete(self, queue: str) -> None:
        self.purge(queue)
        for copy in self.unacked[queue]:
            if copy.truth is not None:
                copy.truth.gone = True
        self.unacked[queue].clear()
        self.queues.pop(queue, None)

    def declare(self, queue: str) -> None:
        self.queues.setdefault(queue, [])

    def step(self) -> None:
        """Let time pass, and keep how every queue was."""
        self.now += TICK
        self._note()

    # what can be seen

    def trace(self) -> Iterator[TraceEvent]:
        for arrived, _, event in sorted(self.events, key=lambda entry: entry[:2]):
            yield event._replace(received_at=arrived)

    def look(self, queue: str, at: int) -> Look:
        """Answer a passive declare at a time."""
        return next(look for look in reversed(self.looks[queue]) if look.at <= at)

    # within

    def _settled(self, copy: Copy) -> bool:
        # a dead letter's own delivery finds no hop when its publish is still on its way: this is a limit of the matcher
        return self.now - copy.put_at > MAX_DELAY

    def _die(self, copy: Copy, queue: str, reason: str) -> None:
        sources = list(copy.source)
        truth = None
        if queue == "wait":
            truth = copy.truth  # it is the same hop still
        elif copy.truth is not None:
            copy.truth.came_to = queue
            copy.truth.gone = True
            sources.append(copy.truth)
        deaths = list(copy.properties.headers.get("x-death", ()))
        old = next((death for death in deaths if (death["queue"], death["reason"]) == (queue, reason)), None)
        entry: dict[str, Any] = {"queue": queue, "reason": reason, "count": 1 if old is None else old["count"] + 1}
        headers = {
            **copy.properties.headers,
            "x-death": [entry, *(death for death in deaths if death is not old)],
        }
        exchange = "orders" if queue == "retry" else "dlx"
        for target in DEAD_LETTERS.get(queue, ()):
            if target in self.queues:
                properties = copy.properties._replace(headers=headers, expiration=None)
                letter = Copy(truth, sources, properties, exchange, copy.body, copy.identity, self.now)
                self.queues[target].append(letter)

    def _trace(self, channel: str, delay: int, event: TraceEvent) -> None:
        arrives = max(self.now + delay, self._last.get(channel, 0))
        self._last[channel] = arrives
        self.events.append((arrives, len(self.events), event))

    def _note(self) -> None:
        for queue in (*READ, *UNREAD):
            exists = queue in self.queues
            look = Look(self.now, len(self.queues.get(queue, ())), int(queue not in self.stopped), exists)
            self.looks.setdefault(queue, []).append(look)
