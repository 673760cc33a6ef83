"""The canaries of one vhost: one every interval through each node of the broker.

The node of the session has a connection already, for inspections too. Each other node is visited on a connection of its
own, again and again when it cannot be reached. Where no canary can be sent, it is not known what is published through
the node: it is `away` then, and the audit goes by the others, with a gap for as long as that lasts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import NoReturn

from auditor.errors import BrokerError
from auditor.tap.canary import Canary, Sighting
from auditor.tap.connection import CONNECTION_ERRORS, Endpoint, answer
from auditor.tap.control import Control

log = logging.getLogger(__name__)


class Canaries:
    """See the module's text. What it gathers is taken by `take`."""

    def __init__(self, canary: Canary, *, interval: float, retry: float, now: Callable[[], int]) -> None:
        """`interval` between two canaries of a node, and `retry` between two visits of one that is away: seconds."""
        self._canary = canary
        self._interval = interval
        self._retry = retry
        self._now = now
        self._next = 1
        self._sent: list[Sighting] = []
        self._lost: list[str] = []
        self.seen: int | None = None
        """The watermark that the ledger has; each canary tells of it."""
        self.away: dict[str, str] = {}
        """The nodes that cannot be reached, and why."""
        self.refusing: dict[str, None] = {}
        """The nodes that take no publishes at the moment."""

    @property
    def exchange(self) -> str:
        """The exchange that they are published to."""
        return self._canary.exchange

    async def newest(self, control: Control) -> Sighting | None:
        """Return the newest canary that the broker has traced, whoever has sent and read it."""
        return await control.newest(self._canary)

    def take(self) -> tuple[list[Sighting], list[str]]:
        """Return what was sent since the last call, and the nodes whose connection was lost since then."""
        taken = self._sent, self._lost
        self._sent, self._lost = [], []
        return taken

    async def send(self, control: Control, node: str) -> None:
        """Send one; a broker that takes no publishes is no error, but `refusing`."""
        sighting = Sighting(self._next, self._now(), node, self.seen)
        self._next += 1
        try:
            await control.send(self._canary, sighting)
        except TimeoutError:
            if node not in self.refusing:
                log.warning("The broker takes no publishes (memory or disk alarm?)", extra={"node": node})
            self.refusing[node] = None
        else:
            self.refusing.pop(node, None)
            self._sent.append(sighting)

    async def go_on(self, control: Control, node: str) -> NoReturn:
        """Send one every interval, until the connection is lost."""
        while True:
            await asyncio.sleep(self._interval)
            await self.send(control, node)

    async def visit(self, endpoint: Endpoint, name: str) -> NoReturn:
        """Send them through a node other than the session's, and come again whenever the connection is lost."""
        node = endpoint.node
        while True:
            try:
                async with aclosing(await Control.open(endpoint, name, self._now)) as control:
                    await answer(control.declare_exchange(self.exchange))
                    await answer(self.send(control, node))
                    if self.away.pop(node, None) is not None:
                        log.info("Canaries go through the node again", extra={"node": node})
                    await answer(self.go_on(control, node))
            except BrokerError as error:
                self._is_away(node, error.why or str(error))
            except CONNECTION_ERRORS as error:
                # perhaps only a cut connection: whether the node is away is seen by connecting again
                log.warning("Lost the connection to the node", extra={"node": node, "why": str(error) or repr(error)})
            self._lost.append(node)
            self.refusing.pop(node, None)
            await asyncio.sleep(self._retry)

    def _is_away(self, node: str, why: str) -> None:
        if self.away.get(node) != why:
            log.warning("Cannot reach the node: what happens through it is not seen", extra={"node": node, "why": why})
        self.away[node] = why
