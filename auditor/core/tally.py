"""The tally: what the metrics count, batch by batch, after each is committed.

One thread counts, and others may read meanwhile: what they get may be a batch behind, and never half of a number.
Nothing in it grows without bound: labels are flows, stages and systems of the settings, words of the program, and so
many queues; the rest is `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from operator import attrgetter
from typing import Protocol, TypeVar

from auditor.core.changes import Changes, Move, StageEntry
from auditor.core.hops import AGAINST, Reason, State

MAX_LABELS = 200
"""Different queues (and stages, and causes) that are told apart; more make dashboards slow and Prometheus large."""

OTHER = "other"

T = TypeVar("T")

_HAD = frozenset({State.DELIVERED, State.LATE})
_SENDER = attrgetter("sender")

# Seconds. A hop takes milliseconds where somebody consumes, and hours where nobody does.
WAIT_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)
# Stages last from seconds (a calculated price) to weeks (a parcel), orders for up to months.
STAGE_EDGES = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 2 * 86400, 4 * 86400, 7 * 86400, 14 * 86400)
ORDER_EDGES = (
    *(1, 10, 60, 600, 3600, 4 * 3600, 12 * 3600),
    *(day * 86400 for day in (1, 2, 4, 7, 14, 21, 30, 60, 90)),
)
COMMIT_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
BATCH_EDGES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 50_000)  # rows


class Standing(Protocol):
    """How the audit of a vhost stands, as of its last batch; times are microseconds since the epoch."""

    @property
    def vhost(self) -> str:
        """Its name."""

    @property
    def connected(self) -> bool:
        """Whether the broker is connected."""

    @property
    def watermark(self) -> int | None:
        """Everything before it has been seen."""

    @property
    def updated_at(self) -> int:
        """The time of the batch."""

    @property
    def queue_depth(self) -> int | None:
        """Messages in the trace queue, at the last look."""

    @property
    def open_hops(self) -> int:
        """Hops in flight or stuck."""

    @property
    def published(self) -> int:
        """Publishes seen since the ledger began."""

    @property
    def delivered(self) -> int:
        """Deliveries seen since then."""

    @property
    def undecodable(self) -> int:
        """Events since then that could not be read."""

    @property
    def orphans(self) -> int:
        """Deliveries since then without a known publish."""

    @property
    def problem(self) -> str | None:
        """What keeps the auditor from seeing."""


class Undecodable(Protocol):
    """An event that could not be read."""

    @property
    def cause(self) -> str:
        """Why."""


class Histogram:
    """Counts of values up to each edge, and their sum."""

    __slots__ = ("counts", "edges", "sum")

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.sum = 0.0

    def observe(self, values: Iterable[float]) -> None:
        """Count values."""
        edges, counts, total = self.edges, self.counts, 0.0
        for value in values:
            counts[bisect_left(edges, value)] += 1
            total += value
        self.sum += total


StageKey = tuple[str, str]
"""The labels of a stage: its name and its system."""

# What a batch's moves and entries have in common is counted once for all of them: a batch has thousands, and few kinds.
_MoveKind = tuple[str, str, State | None, State, Reason | None]  # a Move without its wait
_EntryKind = tuple[str, str, bool, int | None, bool]  # stage, system, whether it is the order's first, steps, repeated


class Tally:
    """See the module's text."""

    def __init__(self) -> None:
        self.standings: dict[str, Standing] = {}  # by vhost
        self.messages: Counter[str] = Counter()  # by sending system
        self.hops: Counter[tuple[str, State, str | None]] = Counter()  # hops that came into a state, by flow and reason
        self.against: Counter[tuple[str, str, State, str | None]] = Counter()  # verdicts by flow, queue, state, reason
        self.waits: dict[str, Histogram] = {}  # by flow: from the publish to the first delivery
        self.stage_times: dict[StageKey, Histogram] = {}  # of orders that have left the stage
        self.processing = Histogram(ORDER_EDGES)  # of orders that were seen from the first stage to the last
        self.entries: Counter[tuple[StageKey, str]] = Counter()  # by how the order came: first, next, skipped, ...
        self.errors: Counter[str] = Counter()  # errors announced in messages, by sending system
        self.causes: Counter[str] = Counter()  # why events could not be read
        self.commits = Histogram(COMMIT_EDGES)
        self.batches = Histogram(BATCH_EDGES)
        self._queues: set[str] = set()
        self._stages: set[StageKey] = set()
        self._causes: set[str] = set()

    def committed(
        self, changes: Changes, standing: Standing, undecodable: Iterable[Undecodable], seconds: float
    ) -> None:
        """Count a batch whose commit took so long."""
        self.standings[standing.vhost] = standing
        if changes.messages:
            self.messages.update(map(_SENDER, changes.messages))
            self.errors.update([row.sender for row in changes.messages if row.error is not None])
        if changes.moves:
            self._count_moves(changes.moves)
        if changes.entries:
            self._count_entries(changes.entries, first_new=changes.messages[0].id)
        for event in undecodable:
            self.causes[_bounded(event.cause.partition(":")[0], self._causes, OTHER)] += 1
        if rows := len(changes.messages) + len(changes.deliveries):
            self.batches.observe((rows,))
            self.commits.observe((seconds,))

    def _count_moves(self, moves: list[Move]) -> None:
        kinds: dict[_MoveKind, list[int | None]] = defaultdict(list)
        for flow, queue, before, after, reason, wait in moves:
            kinds[flow, queue, before, after, reason].append(wait)
        for (flow, queue, before, after, reason), waits in kinds.items():
            self.hops[flow, after, reason] += len(waits)
            if after in _HAD and before not in _HAD:
                histogram = self.waits.get(flow)
                if histogram is None:
                    histogram = self.waits[flow] = Histogram(WAIT_EDGES)
                histogram.observe(wait / 1e6 for wait in waits if wait is not None)
            elif after in AGAINST and before is not after:
                self.against[flow, _bounded(queue, self._queues, OTHER), after, reason] += len(waits)

    def _count_entries(self, entries: list[StageEntry], first_new: int) -> None:
        """Count entries; those are new that this batch's messages began, of which `first_new` is the first."""
        kinds: dict[_EntryKind, list[int]] = defaultdict(list)
        times: dict[StageKey, list[float]] = defaultdict(list)
        processing: list[float] = []
        # by place: names cost three times as much
        for message, _, stage, system, _, entered, previous, left, _, steps, repeated, began, _, ends, _, _ in entries:
            if message >= first_new:
                kinds[stage, system, previous is None, steps, repeated].append(message)
                if ends and began is not None and not repeated:
                    processing.append(max(0, entered - began) / 1e6)
            if left is not None:  # that is written once
                times[stage, system].append((left - entered) / 1e6)
        for (stage, system, is_first, steps, repeated), messages in kinds.items():
            key = self._stage(stage, system)
            self.entries[key, _way(is_first, steps)] += len(messages)
            if repeated:
                self.entries[key, "repeated"] += len(messages)
        for (stage, system), seconds in times.items():
            self.stage_times.setdefault(self._stage(stage, system), Histogram(STAGE_EDGES)).observe(seconds)
        self.processing.observe(processing)

    def _stage(self, stage: str, system: str) -> StageKey:
        return _bounded((stage, system), self._stages, (OTHER, OTHER))


def _way(is_first: bool, steps: int | None) -> str:
    """Return how an order came into a stage; `is_first`: it was in none before."""
    if is_first:
        return "first"
    if steps is None or steps == 1:
        return "next"
    return "skipping" if steps > 1 else "backwards"


def _bounded(label: T, known: set[T], other: T) -> T:
    if label in known:
        return label
    if len(known) < MAX_LABELS:
        known.add(label)
        return label
    return other
