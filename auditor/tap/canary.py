"""The canary: a message of our own whose trace event proves that the firehose reaches us."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

import aio_pika
from aio_pika.abc import AbstractChannel

from auditor.core.events import Published, TraceEvent


class Sighting(NamedTuple):
    """The trace event of a canary."""

    number: int
    at: int  # when it was published, microseconds since the epoch
    node: str = ""  # the node it was published through, as the settings name it: "10.0.0.5:5672"
    seen: int | None = None  # the watermark that the ledger had by then


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """The canaries of one auditor on one vhost."""

    exchange: str  # its own, without queues; and the name of the queue that keeps the newest one's trace event
    auditor: str  # tells them from those of another auditor on the same broker: the name of the trace queue
    user: str  # the broker user that publishes them; what another user publishes there is no canary

    async def publish(self, channel: AbstractChannel, sighting: Sighting, limit: float) -> None:
        """Publish a canary; TimeoutError after `limit` seconds, when the broker takes no publishes."""
        body = json.dumps({"auditor": self.auditor, **sighting._asdict()}).encode()
        exchange = await channel.get_exchange(self.exchange, ensure=False)
        # not mandatory: that nobody takes it is what it is for
        await exchange.publish(aio_pika.Message(body), routing_key="", mandatory=False, timeout=limit)

    def sight(self, event: TraceEvent) -> Sighting | None:
        """Return what the event tells of a canary of ours; None when it is somebody's message."""
        if event.exchange != self.exchange or not isinstance(event, Published) or event.user != self.user:
            return None
        return self.read(event.body)

    def read(self, body: bytes) -> Sighting | None:
        """Return what a canary says in its body; None when it is none of ours."""
        try:
            said = json.loads(body)
            if said["auditor"] != self.auditor:
                return None
            seen = said.get("seen")
            return Sighting(
                int(said["number"]), int(said["at"]), str(said.get("node", "")), None if seen is None else int(seen)
            )
        except (ValueError, KeyError, TypeError):
            return None
