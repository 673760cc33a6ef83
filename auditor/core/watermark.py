"""The watermark: how far the audit has seen.

The auditor publishes a small message of its own, the canary, every second through each node of the broker. The trace
event of a canary comes back through the same trace queue as everybody else's, so once it is here, everything that was
published through its node before it is here too. The watermark is the publish time of the newest canary that came
back, of the node that is furthest behind. It stands still while the auditor is behind or blind, and nobody is accused
meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

_MAX_OUT = 10_000  # canaries of one node that are waited for: some hours; beyond it every second one is forgotten


class _Node:
    """The canaries of one node."""

    __slots__ = ("at", "out")

    def __init__(self, at: int | None) -> None:
        self.at = at  # the publish time of the newest that came back
        self.out: dict[int, int] = {}  # number -> when it was published, oldest first


class Watermark:
    """Follows the canaries of one vhost. Times are microseconds since the epoch."""

    def __init__(self, margin: int, at: int | None = None, nodes: Iterable[str] = ("",)) -> None:
        """Start at `at`, the watermark of the ledger; `margin` is two canaries long.

        The margin covers events of other channels that were published before the canary and overtook it on their way:
        the broker orders events within one channel only.
        """
        self._margin = margin
        self._at = at
        self._nodes = {node: _Node(at) for node in nodes}
        self._left_out: Set[str] = frozenset()

    @property
    def at(self) -> int | None:
        """Everything published before this time has been seen, but for the margin; None before the first canary."""
        return self._at

    @property
    def horizon(self) -> int | None:
        """Everything published before this time has been seen; what the deadlines are held against."""
        return None if self._at is None else self._at - self._margin

    @property
    def newest(self) -> int | None:
        """The publish time of the newest canary of any node: what is read now was not published before it."""
        return max((node.at for node in self._nodes.values() if node.at is not None), default=None)

    @property
    def upcoming(self) -> int | None:
        """A time after which nothing was published that is read now, unless canaries got lost; None: not known.

        The next canary of some node was published then, and has not come back yet.
        """
        times = [next(iter(node.out.values()), None) for node in self._watched()]
        return None if None in times else max((at for at in times if at is not None), default=None)

    def sent(self, node: str, number: int, at: int) -> None:
        """Note that a canary was published; its trace event may have been quicker than this note."""
        of_node = self._nodes[node]
        if of_node.at is None or at > of_node.at:
            if len(of_node.out) >= _MAX_OUT:
                of_node.out = dict(list(of_node.out.items())[::2])
            of_node.out[number] = at

    def returned(self, node: str, number: int, at: int) -> bool:
        """Note that the trace event of a canary was seen; it may be one of an earlier run, found in the backlog.

        True when canaries of this connection that were published before it did not come: the broker keeps the order
        within a channel, so their trace events are lost, and those of others may be.
        """
        of_node = self._nodes.get(node)
        if of_node is None:
            return False  # an earlier run went by another node, or called it otherwise
        of_node.out.pop(number, None)
        missing = [other for other, sent_at in of_node.out.items() if sent_at <= at]
        for other in missing:
            del of_node.out[other]
        if of_node.at is None or at > of_node.at:
            of_node.at = at
            self._move()
        return bool(missing)

    def at_of(self, node: str) -> int | None:
        """Return the publish time of the newest canary of a node that came back."""
        of_node = self._nodes.get(node)
        return self._at if of_node is None else of_node.at

    def leave_out(self, nodes: Set[str]) -> None:
        """Go by the other nodes: through these no canary can be sent. One that is back has to show a canary first."""
        for node in self._left_out - nodes:
            self._nodes[node].at = self._at
        for node in nodes:
            self._nodes[node].out.clear()
        self._left_out = nodes
        self._move()

    def forget(self, *nodes: str) -> None:
        """Give up the canaries that are still out through these nodes: the connection they went through is gone."""
        for node in nodes:
            self._nodes[node].out.clear()

    def silent(self) -> dict[str, int]:
        """Return the nodes that have a canary out, and when the oldest of them was published."""
        return {name: next(iter(node.out.values())) for name, node in self._nodes.items() if node.out}

    def _watched(self) -> list[_Node]:
        return [node for name, node in self._nodes.items() if name not in self._left_out]

    def _move(self) -> None:
        times = [node.at for node in self._watched()]
        seen = [at for at in times if at is not None]
        if seen and len(seen) == len(times) and (self._at is None or min(seen) > self._at):
            self._at = min(seen)
