"""The stages of orders: which one an order is in, since when, and what it skipped, repeated or went back to.

Messages announce stages. An order enters a stage with the first message that announces it, and leaves it with the next
message that announces another one. A message that is published again says nothing new. Nothing else is known of an
order, so nothing else is claimed.

The orders touched last are in memory; one that is not is asked for where it was stored (`Recall`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from auditor.core.changes import MessageRow, StageEntry

MAX_ORDERS = 20_000
"""Orders kept in memory, about 10 MB; past it the one that was quiet for longest is asked for when it speaks again."""


_MAX_TOLD = 32
"""Messages of an order that are known again; one is published again soon or never."""


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

    def __init__(self, entry: StageEntry, visited: int | None, told: tuple[int, ...] = ()) -> None:
        self.entry = entry  # the newest
        self.visited = visited  # a bit for each place; None: not read from the ledger yet
        self.told = told  # identities of the messages that have spoken of it


class Orders:
    """Follows the orders of all vhosts: an order may pass through several."""

    def __init__(self, stages: StageTable, recall: Recall, *, limit: int = MAX_ORDERS) -> None:
        self._stages = stages
        self._recall = recall
        self._limit = limit
        self._orders: OrderedDict[str, _Order] = OrderedDict()  # by order id, the one touched last at the end

    def __len__(self) -> int:
        """How many orders are in memory."""
        return len(self._orders)

    def restore(self, newest: Iterable[StageEntry]) -> None:
        """Take in, after a start, the newest entry of the orders touched last, in the order of their messages.

        Without it an order that has ended would be taken for a new one when a message of it comes again.
        """
        for entry in newest:
            self._keep(entry, None, ())

    def see(self, messages: Iterable[MessageRow]) -> list[StageEntry]:
        """Take in messages; return each entry that is new or has changed, once."""
        changed: dict[int, StageEntry] = {}
        for row in messages:
            if row.order_id is not None and (row.stage is not None or row.error is not None):
                for entry in self._announced(row):
                    changed[entry.message] = entry
        return list(changed.values())

    def _announced(self, row: MessageRow) -> list[StageEntry]:
        assert row.order_id is not None
        order = self._find(row.order_id)
        # without a message id, two messages may be alike and mean two things
        if order is not None and row.message_id is not None and row.identity in order.told:
            return []
        if order is not None and (row.stage is None or row.stage == order.entry.stage):
            marked = _marked(order.entry, row)
            self._keep(marked, order.visited, (*order.told, row.identity))
            return [] if marked is order.entry else [marked]
        if row.stage is None:
            return []  # an error of an order that is in no stage; the message keeps it
        place = self._stages.place(row.stage)
        if order is None:
            began_at = row.published_at if place == 0 else None
            return [self._keep(self._entry(row, row.stage, place, began_at), _bit(place), (row.identity,))]
        before, visited = order.entry, self._visited(order)
        was = self._stages.place(before.stage)
        entry = self._entry(
            row,
            row.stage,
            place,
            before.began_at,
            previous=before.message,
            steps=None if was is None or place is None else place - was,
            repeated=bool(visited & _bit(place)),
        )
        self._keep(entry, visited | _bit(place), (*order.told, row.identity))
        return [_left(before, row.published_at), entry]

    def _entry(
        self,
        row: MessageRow,
        stage: str,
        place: int | None,
        began_at: int | None,
        *,
        previous: int | None = None,
        steps: int | None = None,
        repeated: bool = False,
    ) -> StageEntry:
        assert row.order_id is not None
        known = None if place is None else self._stages.stages[place]
        ends = self._stages.ends(place)
        at = row.published_at
        return StageEntry(
            row.id,
            row.order_id,
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

    def _visited(self, order: _Order) -> int:
        if order.visited is None:
            order.visited = 0
            for stage in self._recall.stages(order.entry):
                order.visited |= _bit(self._stages.place(stage))
        return order.visited

    def _find(self, order_id: str) -> _Order | None:
        order = self._orders.get(order_id)
        if order is None and (entry := self._recall.entry(order_id)) is not None:
            order = _Order(entry, None)
        return order

    def _keep(self, entry: StageEntry, visited: int | None, told: tuple[int, ...]) -> StageEntry:
        self._orders[entry.order_id] = _Order(entry, visited, told[-_MAX_TOLD:])
        self._orders.move_to_end(entry.order_id)
        if len(self._orders) > self._limit:
            self._orders.popitem(last=False)
        return entry


def _left(entry: StageEntry, at: int) -> StageEntry:
    """Return an entry with its end. (`_replace` takes four times as long, and each step of an order needs one.)"""
    left_at = max(at, entry.entered_at)  # events of two channels may come in another order than they happened
    return StageEntry(*entry[:7], left_at, *entry[8:12], False, *entry[13:])


def _marked(entry: StageEntry, row: MessageRow) -> StageEntry:
    """Return the entry with the error that the message announces, if it does."""
    return entry if row.error is None else entry._replace(errors=entry.errors + 1, error=row.error)


def _bit(place: int | None) -> int:
    return 0 if place is None else 1 << place
