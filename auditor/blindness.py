"""Why no canary comes back, and what can be done about it.

Each cause is looked for where it can be seen, told in a sentence with what to do, and mended where that is allowed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from auditor.core.gaps import GapReason
from auditor.errors import BrokerError
from auditor.tap.control import Control
from auditor.tap.management import Management, Missing

log = logging.getLogger(__name__)


class Finding(NamedTuple):
    """What was found out."""

    reason: GapReason | None  # None: nothing is missing
    says: str
    until_lost: bool = False  # only what was under way when the connection was lost is missing
    suspected: bool = False  # that something is missing: nothing was found that would prove it


class Blindness:
    """Looks for the causes in one vhost."""

    def __init__(
        self,
        vhost: str,
        *,
        canary_exchange: str,
        queue: str,
        binding_keys: Sequence[str],
        max_bytes: int,
        managements: Sequence[Management],
        enable_firehose: bool,
    ) -> None:
        """`managements`: the API of each node whose firehose may be looked after."""
        self._vhost = vhost
        self._canary_exchange = canary_exchange
        self._queue = queue
        self._binding_keys = binding_keys
        self._max_bytes = max_bytes
        self._managements = managements
        self._enable_firehose = enable_firehose

    async def declare(self, control: Control, *, known: bool) -> Finding | None:
        """Make sure of what is ours on the broker; BrokerError when it is not allowed.

        `known`: there was an audit before, so that what has to be made was there and is gone.
        """
        declared = await control.declare(self._canary_exchange, self._queue, self._binding_keys, self._max_bytes)
        if not known:
            return None
        if declared.queue:
            return Finding(GapReason.QUEUE_GONE, "The trace queue was gone: made it again")
        if declared.exchange:
            # whether the firehose was kept on is another question; events that were under way are lost in any case
            return Finding(GapReason.BLIND, "The broker was restarted: what was under way was not seen", True)
        return None

    async def look_at_firehose(self) -> Finding | None:
        """Turn the firehose on, on each node where the management API says that it is off; None: it is not."""
        found = None
        for api in self._managements:
            try:
                off = await asyncio.to_thread(api.firehose_is_on, self._vhost) is False
                if not off:
                    continue
                node = await asyncio.to_thread(api.node)
                if not self._enable_firehose:
                    found = Finding(
                        GapReason.FIREHOSE_OFF,
                        f"The firehose is off on {node}, and tap.enable_firehose forbids to turn it on:"
                        f" rabbitmqctl -n {node} trace_on -p {self._vhost}",
                    )
                    continue
                await asyncio.to_thread(api.turn_firehose_on, self._vhost)
            except BrokerError as error:
                found = found or Finding(None, str(error))
            else:
                log.info("The firehose was off: turned it on", extra={"vhost": self._vhost, "node": node})
                found = Finding(GapReason.FIREHOSE_OFF, f"The firehose was off on {node}: turned it on")
        return found

    async def explain(self, control: Control, nodes: Sequence[str]) -> Finding:
        """Find out why no canary comes back through these nodes, and mend it if that can be done."""
        unbound = await self._unbound()
        try:
            made = await self.declare(control, known=True)
        except BrokerError as error:
            return Finding(GapReason.BLIND, f"Blind: {error}")
        if made is not None:
            return made
        if unbound:
            keys = ", ".join(map(repr, unbound))
            return Finding(GapReason.BLIND, f"The trace queue was no longer bound with {keys}: bound it again")
        firehose = await self.look_at_firehose()
        if firehose is not None and firehose.reason is not None:
            return firehose
        because = f" ({firehose.says})" if firehose is not None else ""
        return Finding(
            GapReason.BLIND,
            f"Blind: no canary comes back through {', '.join(nodes)}, so the firehose is off there, or was not bound."
            f" To turn it on, there: rabbitmqctl trace_on -p {self._vhost}{because}",
            suspected=True,
        )

    async def _unbound(self) -> list[str]:
        """Return the keys that the trace queue should be bound with and is not, as far as that can be known."""
        for api in self._managements[:1]:
            try:
                bound = await asyncio.to_thread(api.binding_keys, self._vhost, self._queue)
            except Missing:
                return []  # the queue is gone: that is told elsewhere
            except BrokerError as error:
                log.info("Could not look at the bindings", extra={"why": str(error)})
            else:
                return [key for key in self._binding_keys if key not in bound]
        return []
