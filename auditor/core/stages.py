"""The stages of orders: which one an order is in, since when, and what it skipped, repeated or went back to.

Messages announce stages. An order enters a stage with the first message that announces it, and leaves it with the next
message that announces another one. A message that is published again says nothing new. Nothing else is known of an
order, so nothing else is claimed.

The orders touched last are in memory; one that is not is asked for where it was stored (`Recall`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from auditor.core.changes import MessageRow, StageEntry

MAX_ORDERS = 20_000
"""Orders kept in memory, about 10 MB; past it those that were quiet for longest are asked for when they speak again."""

_new = tuple.__new__  # makes a named tuple in half the time that calling its class takes

_IDENTITY = 8  # bytes
_MAX_TOLD = 32 * _IDENTITY
"""So many messages of an order are known again; one is published again soon or never."""


class Stage(NamedTuple):
    """A stage that an order should pass."""

    name: str
    system: str  # the one that announces it; empty: whichever does
    deadline: int | None  # microseconds an order may be in it; None: as long as it takes


class StageTable:
    """The stages in the order in which an order passes them; the last one ends it."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        """Take the stages; ValueError when two have one name."""
        self.stages = tuple(stages)
        self._places = {stage.name: place for place, stage in enumerate(self.stages)}
        if len(self._places) != len(self.stages):
            raise ValueError("two stages have one name")

    def place(self, name: str) -> int | None:
        """Return which one it is, counted from 0; None for a stage that is not among them."""
        return self._places.get(name)

    def ends(self, place: int | None) -> bool:
        """Whether an order ends with this stage."""
        return place == len(self.stages) - 1


class Recall(NamedTuple):
    """How stored entries are asked for."""

    entry: Callable[[str], StageEntry | None]  # by order id: the open entry
    stages: Callable[[StageEntry], Iterable[str]]  # the stages that its order was in, up to this entry


class _Order:
    """An order in memory."""

    __slots__ = ("entry", "told", "visited")

    def __init__(self, entry: StageEntry, visited: int | None, told: bytes = b"") -> None:
        self.entry = entry  # the newest
        self.visited = visited  # a bit for each place; None: not read from the ledger yet
        self.told = told  # identities of the messages that have spoken of it, as bytes: a quarter of the room


class Orders:
    """Follows the orders of all vhosts: an order may pass through several."""

    def __init__(self, stages: StageTable, recall: Recall, *, limit: int = MAX_ORDERS) -> None:
        self._stages = stages
        self._recall = recall
        # By order id. Who speaks is among the recent ones; when they are half of the limit, they become the earlier
        # ones, and those that were it are forgotten. So nothing has to be moved each time that an order speaks.
        self._half = max(1, limit // 2)
        self._recent: dict[str, _Order] = {}
        self._earlier: dict[str, _Order] = {}

    def __len__(self) -> int:
        """How many orders are in memory."""
        return len(self._recent) + len(self._earlier)

    def restore(self, newest: Iterable[StageEntry]) -> None:
        """Take in, after a start, the newest entry of the orders touched last, in the order of their messages.

        Without it an order that has ended would be taken for a new one when a message of it comes again.
        """
        for entry in newest:
            self._keep(_Order(entry, None))

    def see(self, messages: Iterable[MessageRow]) -> list[StageEntry]:
        """Take in messages; return each entry that is new or has changed, once."""
        changed: dict[int, StageEntry] = {}
        for row in messages:
            order_id = row.order_id
            if order_id is None or (row.stage is None and row.error is None):
                continue
            order = self._recent.get(order_id) or self._find(order_id)
            if order is None:
                if row.stage is None:
                    continue  # an error of an order that is in no stage; the message keeps it
                order = self._begin(order_id, row, row.stage)
            else:
                mark = row.identity.to_bytes(_IDENTITY, "little", signed=True)
                # without a message id, two messages may be alike and mean two things
                # (that a mark is found across two others is as unlikely as that two messages have the same one)
                if row.message_id is not None and mark in order.told:
                    continue
                order.told = (order.told + mark)[-_MAX_TOLD:]
                before = order.entry
                if row.stage is not None and row.stage != before.stage:
                    self._enter(order, row, row.stage)
                    changed[before.message] = _left(before, row.published_at)
                elif row.error is not None:
                    order.entry = before._replace(errors=before.errors + 1, error=row.error)
                else:
                    continue
            changed[order.entry.message] = order.entry
        return list(changed.values())

    def _begin(self, order_id: str, row: MessageRow, stage: str) -> _Order:
        """Begin an order that is not known with the stage that a message announces."""
        place = self._stages.place(stage)
        began_at = row.published_at if place == 0 else None
        entry = self._entry(order_id, row, stage, place, None, None, False, began_at)
        order = _Order(entry, _bit(place), row.identity.to_bytes(_IDENTITY, "little", signed=True))
        self._keep(order)
        return order

    def _enter(self, order: _Order, row: MessageRow, stage: str) -> None:
        """Have an order go from its stage into another one."""
        before = order.entry
        place, was = self._stages.place(stage), self._stages.place(before.stage)
        visited = self._visited(order)
        steps = None if was is None or place is None else place - was
        repeated = visited & _bit(place) != 0
        order.entry = self._entry(before.order_id, row, stage, place, before.message, steps, repeated, before.began_at)
        order.visited = visited | _bit(place)

    def _entry(
        self,
        order_id: str,
        row: MessageRow,
        stage: str,
        place: int | None,
        previous: int | None,
        steps: int | None,
        repeated: bool,
        began_at: int | None,
    ) -> StageEntry:
        known = None if place is None else self._stages.stages[place]
        ends = self._stages.ends(place)
        at = row.published_at
        values = (
            row.id,
            order_id,
            stage,
            row.sender if known is None or not known.system else known.system,
            row.vhost,
            at,
            previous,
            None,
            None if known is None or known.deadline is None or ends else at + known.deadline,
            steps,
            repeated,
            began_at,
            known is not None and not ends,  # nothing is expected of an order in a stage that nobody has set
            ends,
            int(row.error is not None),
            row.error,
        )
        return _new(StageEntry, values)

    def _visited(self, order: _Order) -> int:
        if order.visited is None:
            order.visited = 0
            for stage in self._recall.stages(order.entry):
                order.visited |= _bit(self._stages.place(stage))
        return order.visited

    def _find(self, order_id: str) -> _Order | None:
        """Return an order that is not among the recent ones, which it joins."""
        order = self._earlier.pop(order_id, None)
        if order is None:
            entry = self._recall.entry(order_id)
            if entry is None:
                return None
            order = _Order(entry, None)
        self._keep(order)
        return order

    def _keep(self, order: _Order) -> None:
        self._recent[order.entry.order_id] = order
        if len(self._recent) >= self._half:
            self._recent, self._earlier = {}, self._recent


def _left(entry: StageEntry, at: int) -> StageEntry:
    """Return an entry with its end. (`_replace` takes four times as long, and each step of an order needs one.)"""
    left_at = max(at, entry.entered_at)  # events of two channels may come in another order than they happened
    return _new(StageEntry, (*entry[:7], left_at, *entry[8:12], False, *entry[13:]))


def _bit(place: int | None) -> int:
    return 0 if place is None else 1 << place
