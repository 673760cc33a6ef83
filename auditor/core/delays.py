"""Messages that are held back on purpose: by a delayed exchange, or in a delay queue.

- An exchange of the type x-delayed-message keeps a message for its `x-delay` and routes it then. The publish event
  shows no queue, and the routing is not traced. What is delivered has the header still, negated
  (`rabbit_delayed_message_utils.erl`, `swap_delay_header`).
- A delay queue has a time to live, no consumer, and a dead-letter exchange behind it. The publish event shows this
  queue and no further one; what is delivered tells in its `x-death` that it expired there.

So where the message will go is not known until it is delivered. Until then it has one hop, to the place where it is
held back: the delay queue, or for an exchange the empty name. With its first delivery that hop is moved to the queue
which the delivery is from, and is like any other from then on; deliveries from other queues have hops of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

from auditor.core.book import Hop
from auditor.core.events import Value

EXCHANGE = ""
"""The place of what a delayed exchange holds back."""

_MILLISECOND = 1000
_LONGEST = 2**32 - 1  # milliseconds; the exchange holds nothing back for longer
_MAX_ARRIVED = 10_000  # messages whose further queues may still be seen, 4 MB


def delay_of(headers: Mapping[str, Value]) -> int:
    """Return for how many microseconds a delayed exchange holds such a message back; 0 when it does not."""
    try:
        # numbers and text with one are taken
        delay = int(headers.get("x-delay", 0))
    except (TypeError, ValueError, OverflowError):
        return 0
    return min(max(delay, 0), _LONGEST) * _MILLISECOND


def was_delayed(headers: Mapping[str, Value]) -> bool:
    """Whether a delivery may be of a message that a delayed exchange has held back."""
    return "x-delay" in headers


class Arrived:
    """The newest hops that have left the place where they were held back, by the identity of their message.

    Not stored: after a restart the delivery of a message that went to several queues may be one without known publish.
    """

    def __init__(self) -> None:
        self._hops: dict[int, Hop] = {}

    def note(self, hop: Hop) -> None:
        """Take in that a hop has come to a queue."""
        self._hops.pop(hop.message.identity, None)
        self._hops[hop.message.identity] = hop
        if len(self._hops) > _MAX_ARRIVED:
            del self._hops[next(iter(self._hops))]

    def of(self, identity: int) -> Hop | None:
        """Give the newest of an identity."""
        return self._hops.get(identity)
