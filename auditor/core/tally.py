"""The tally: what the metrics count, batch by batch, after each is committed.

One thread counts, and others may read meanwhile: what they get may be a batch behind, and never half of a number.
Nothing in it grows without bound: labels are flows, stages and systems of the settings, words of the program, and so
many queues; the rest is `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from operator import attrgetter, itemgetter
from typing import Protocol, TypeVar

from auditor.core.changes import Changes, Move, StageEntry
from auditor.core.hops import AGAINST, State

MAX_LABELS = 200
"""Different queues (and stages, and causes) that are told apart; more make dashboards slow and Prometheus large."""

OTHER = "other"

T = TypeVar("T")

_HAD = frozenset({State.DELIVERED, State.LATE})
_KEY = itemgetter(0, 3, 4)  # flow, state and reason of a Move
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

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.sum += value


StageKey = tuple[str, str]
"""The labels of a stage: its name and its system."""


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
            for row in changes.messages:
                if row.error is not None:
                    self.errors[row.sender] += 1
        if changes.moves:
            self._count_moves(changes.moves)
        if changes.entries:
            self._count_entries(changes.entries, first_new=changes.messages[0].id)
        for event in undecodable:
            self.causes[_bounded(event.cause.partition(":")[0], self._causes, OTHER)] += 1
        if rows := len(changes.messages) + len(changes.deliveries):
            self.batches.observe(rows)
            self.commits.observe(seconds)

    def _count_moves(self, moves: list[Move]) -> None:
        self.hops.update(map(_KEY, moves))
        waits = self.waits
        for flow, queue, before, after, reason, wait in moves:
            if wait is not None and after in _HAD and before not in _HAD:
                histogram = waits.get(flow)
                if histogram is None:
                    histogram = waits[flow] = Histogram(WAIT_EDGES)
                histogram.observe(wait / 1e6)
            elif after in AGAINST and before is not after:
                self.against[flow, _bounded(queue, self._queues, OTHER), after, reason] += 1

    def _count_entries(self, entries: list[StageEntry], first_new: int) -> None:
        """Count entries; those are new that this batch's messages began, of which `first_new` is the first."""
        for entry in entries:
            key = (entry.stage, entry.system)
            times = self.stage_times.get(key)
            if times is None:
                key = _bounded(key, self._stages, (OTHER, OTHER))
                times = self.stage_times.setdefault(key, Histogram(STAGE_EDGES))
            if entry.message >= first_new:
                self.entries[key, _way(entry)] += 1
                if entry.repeated:
                    self.entries[key, "repeated"] += 1
                elif entry.ends and entry.began_at is not None:
                    self.processing.observe(max(0, entry.entered_at - entry.began_at) / 1e6)
            if entry.left_at is not None:  # that is written once
                times.observe((entry.left_at - entry.entered_at) / 1e6)


def _way(entry: StageEntry) -> str:
    """Return how an order came into a stage."""
    steps = entry.steps
    if entry.previous is None:
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
