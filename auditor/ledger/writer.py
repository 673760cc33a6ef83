"""The one writing connection. Every call comes from the thread that opened it; sqlite3 itself refuses any other.

`commit` is on the hot path: it runs once a batch and does as little as it can for each row.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from auditor import __version__
from auditor.core.changes import Changes, DeliveryRow, HopRow, MessageRow, OrphanRow, StageEntry, StoredHop
from auditor.core.completeness import Span
from auditor.core.gaps import GapReason
from auditor.core.seen import Unconfirmed
from auditor.errors import LedgerDamaged
from auditor.ledger import damage, letters, opening, orders, outbox, seen
from auditor.ledger.interning import Clients, Names
from auditor.ledger.lock import Lock
from auditor.ledger.lookup import Lookup
from auditor.ledger.room import Room
from auditor.ledger.statements import Insert
from auditor.ledger.words import REASONS, STATES

MAX_HEADER = 64 * 1024
"""Bytes kept of an undecodable event's header."""


class Status(NamedTuple):
    """How the audit of one vhost stands. Counts are totals since the ledger began, times microseconds since 1970."""

    vhost: str
    connected: bool
    watermark: int | None
    last_event_at: int | None
    updated_at: int
    queue_depth: int | None  # messages in the trace queue
    open_hops: int
    published: int
    delivered: int
    undecodable: int
    orphans: int
    traced: int  # trace events of publishes, read or not, but those of canaries
    pid: int
    version: str  # of the auditor
    broker: str  # product and version
    problem: str | None  # what keeps the auditor from seeing


class Undecodable(NamedTuple):
    """A trace event that could not be read."""

    vhost: str
    routing_key: str
    cause: str
    header: bytes
    body_size: int
    body_digest: bytes
    received_at: int


class Compared(NamedTuple):
    """How the broker's counter of publishes compares with what was seen."""

    span: Span | None  # None: there is nothing to tell yet
    note: str | None  # why there is none, in words


class GapRow(NamedTuple):
    """A span of time that was not audited."""

    id: int  # given by the caller, counting on from `next_gap_id`
    vhost: str
    reason: str
    from_at: int | None  # None: since ever
    to_at: int | None  # None: still going on
    missing: int | None = None  # publishes that were counted and not seen; None: not known


_MESSAGES = Insert(
    "INSERT INTO messages (id, client_id, exchange_id, routing_key_id, routing_key, message_id, identity, order_id,"
    " stage_id, sender_id, user_id, error, priority, size, trace_context, published_at, time_source_id,"
    " correlation_id)",
    18,
)
_HOPS = Insert(
    "INSERT INTO hops (message, number, queue_id, flow_id, state_id, reason_id, deadline, wait, attempts, judged_at,"
    " consumer_id, redelivered)",
    12,
    # the first delivery is told once, with the batch in which it came
    "ON CONFLICT (message, number) DO UPDATE SET state_id = excluded.state_id, reason_id = excluded.reason_id,"
    # of a message that was held back the queue is not known before
    " queue_id = excluded.queue_id, flow_id = excluded.flow_id, deadline = excluded.deadline,"
    " wait = excluded.wait, attempts = excluded.attempts, judged_at = ifnull(excluded.judged_at, judged_at),"
    " consumer_id = ifnull(consumer_id, excluded.consumer_id), redelivered = max(redelivered, excluded.redelivered)",
)
_DELIVERIES = Insert(
    "INSERT INTO further_deliveries (message, hop, attempt, wait, consumer_id, redelivered)",
    6,
)
_ORPHANS = Insert(
    "INSERT INTO orphans (id, queue_id, exchange_id, routing_key, identity, message_id, order_id, stage_id, flow_id,"
    " size, consumer_id, redelivered, received_at)",
    13,
)
_UNDECODABLE = Insert(
    "INSERT INTO undecodable (vhost, routing_key, cause, header, body_size, body_digest, received_at)", 7
)
_GAPS = Insert(
    "INSERT INTO gaps (id, vhost, reason, from_at, to_at, missing)",
    6,
    "ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, from_at = excluded.from_at, to_at = excluded.to_at,"
    " missing = excluded.missing",
)
_COMPLETENESS = Insert(
    f"INSERT OR REPLACE INTO completeness (vhost, note, {', '.join(Span._fields)})", 2 + len(Span._fields)
)
_COMMIT = "A batch could not be written to the ledger"
_STATUS = Insert(f"INSERT OR REPLACE INTO status ({', '.join(Status._fields)})", len(Status._fields))


def _seen_until(vhost: str, watermark: int, now: int) -> Status:
    """Return the status of a ledger that knows nothing but how far another had seen."""
    return Status(
        vhost=vhost,
        connected=False,
        watermark=watermark,
        last_event_at=None,
        updated_at=now,
        queue_depth=None,
        open_hops=0,
        published=0,
        traced=0,
        delivered=0,
        undecodable=0,
        orphans=0,
        pid=os.getpid(),
        version=__version__,
        broker="",
        problem=None,
    )


class Ledger:
    """The ledger as its one writer sees it. Make it with `open`."""

    def __init__(self, path: Path, lock: Lock, min_free: int, outbox_rows: int) -> None:
        """Open the file; `lock` is held until `close`."""
        self.path = path
        self.moved: damage.Moved | None = None  # the damaged ledger in whose place this one was begun
        self._lock = lock
        self._min_free = min_free
        self._undone = False  # a transaction was, and the caches may know what it had written
        self.prune_at = (0, 0)  # block and message at which `retention.prune` goes on
        self.db = opening.connect(path, look_through=not lock.left_closed)
        self._conn = self.db.conn
        self._room = Room(path, self._conn, min_free)
        try:
            self.names = Names(self._conn)
            self.clients = Clients(self._conn)
            self._lookup = Lookup(self._conn)
            self.outbox = outbox.Outbox(self._conn, outbox_rows) if outbox_rows else None
            self.next_orphan_id = self._next("orphans")
            self.next_gap_id = self._next("gaps")
        except sqlite3.Error as exc:
            self._conn.close()
            raise letters.refused("The ledger could not be read", path, exc) from exc

    @classmethod
    def open(cls, path: Path, *, min_free: int = 0, vhosts: Sequence[str] = (), outbox_rows: int = 0) -> Ledger:
        """Open the ledger for writing, made and migrated as needed; LedgerError says what is against it.

        While less than `min_free` bytes of its disk are free, `commit` refuses batches. A damaged ledger is moved
        aside (`moved`), and the new one begins with a gap for each of `vhosts`. At most `outbox_rows` things wait to be
        told to tracing; 0: none do.
        """
        lock = Lock.take(path, opening.WHAT)
        try:
            try:
                if lock.left_damaged and damage.is_ours(path):
                    raise letters.damaged(opening.WHAT, path, "it was when it was last written")
                ledger = cls(path, lock, min_free, outbox_rows)
            except LedgerDamaged as error:
                moved = damage.move_aside(path, error)
                ledger = cls(path, lock, min_free, outbox_rows)
                ledger._begin_again(moved, vhosts)
            lock.in_use()
            return ledger
        except BaseException:
            lock.release()
            raise

    def close(self, *, damaged: bool = False) -> None:
        """Close the file; the log is worked off and removed unless somebody reads.

        `damaged`: it was found so, and the next `open` is to move it aside.
        """
        self._conn.close()
        if damaged:
            self._lock.damaged()
        else:
            self._lock.closed()
        self._lock.release()

    @contextmanager
    def transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        """Write all or nothing; LedgerError begins with `what`."""
        try:
            self._conn.execute("BEGIN IMMEDIATE")
            try:
                if self._undone:
                    self._forget()
                yield self._conn
                self._conn.execute("COMMIT")
            except BaseException:
                self._undone = True
                if self._conn.in_transaction:  # a full disk has undone it already
                    self._conn.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            raise letters.refused(what, self.path, exc) from exc

    def commit(
        self,
        changes: Changes,
        *,
        status: Status,
        undecodable: Sequence[Undecodable] = (),
        gaps: Sequence[GapRow] = (),
        unconfirmed: Unconfirmed | None = None,
        compared: Compared | None = None,
    ) -> None:
        """Write a batch of one vhost (`status.vhost`) in one transaction; LedgerError if nothing of it was written."""
        events = changes.messages or changes.hops or changes.orphans or changes.adopted or undecodable
        if events and self._room.is_short():
            raise letters.little_room(_COMMIT, self.path, self._min_free)
        with self.transaction(_COMMIT) as conn:
            self.names.on(status.updated_at)
            self.clients.on(status.updated_at)
            if changes.messages:
                _MESSAGES.run(conn, self._message_values(changes.messages))
            if self.outbox is not None:
                self.outbox.write(changes)
            if changes.hops or changes.deliveries:
                hops, deliveries = self._hop_values(changes.hops, changes.deliveries, status.vhost)
                _HOPS.run(conn, hops)
                _DELIVERIES.run(conn, deliveries)
            if changes.orphans:
                _ORPHANS.run(conn, self._orphan_values(changes.orphans))
            for orphan in changes.adopted:
                conn.execute("DELETE FROM orphans WHERE id = ?", (orphan,))
            if changes.entries:
                orders.write(conn, changes.entries, changes.messages[0].id, self.names)
            kept = (row._replace(header=row.header[:MAX_HEADER]) for row in undecodable)
            _UNDECODABLE.run(conn, [value for row in kept for value in row])
            _GAPS.run(conn, [value for gap in gaps for value in gap])
            for gap in gaps:
                if gap.from_at is not None and gap.from_at == gap.to_at:  # it turned out that nothing was missing
                    conn.execute("DELETE FROM gaps WHERE id = ?", (gap.id,))
            if unconfirmed is not None:
                seen.write(conn, status.vhost, unconfirmed)
            if compared is not None:
                span = compared.span or [None] * len(Span._fields)
                _COMPLETENESS.run(conn, [status.vhost, compared.note, *span])
            _STATUS.run(conn, list(status))
            self._lookup.add(changes.messages)

    def tell(self, vhost: str, problem: str | None, now: int) -> None:
        """Have the status of a vhost say this, while no batch can be written; LedgerError if even that cannot be."""
        with self.transaction("The status could not be written to the ledger") as conn:
            sql = "UPDATE status SET problem = ?, updated_at = ?, pid = ?, version = ? WHERE vhost = ?"
            conn.execute(sql, (problem, now, os.getpid(), __version__, vhost))

    @property
    def next_message_id(self) -> int:
        """The number for the next message; never one that was used before."""
        return self._lookup.next_message

    def status(self, vhost: str) -> Status | None:
        """Return the status as it was last committed."""
        with self._reading():
            sql = f"SELECT {', '.join(Status._fields)} FROM status WHERE vhost = ?"
            row = self._conn.execute(sql, (vhost,)).fetchone()
        return None if row is None else Status._make(row)._replace(connected=bool(row[1]))

    def unconfirmed(self, vhost: str) -> Unconfirmed:
        """Return the digests of the events that may come again."""
        with self._reading():
            return seen.read(self._conn, vhost)

    def span(self, vhost: str) -> Span | None:
        """Return how the broker's counter compared with what was seen when that was last told."""
        sql = f"SELECT {', '.join(Span._fields)} FROM completeness WHERE vhost = ? AND since_at IS NOT NULL"
        with self._reading():
            row = self._conn.execute(sql, (vhost,)).fetchone()
        return None if row is None else Span._make(row)

    def gaps(self, vhost: str, since: int) -> list[GapRow]:
        """Return the gaps that ended after `since` or have not ended, by id."""
        columns = ", ".join(GapRow._fields)
        sql = f"SELECT {columns} FROM gaps WHERE vhost = ? AND ifnull(to_at, ?) >= ? ORDER BY id"
        with self._reading():
            return [GapRow._make(row) for row in self._conn.execute(sql, (vhost, since, since))]

    def open_hops(self, vhost: str, limit: int) -> list[StoredHop]:
        """Return the newest hops of which more may be learned, at most so many, in order of message and number."""
        with self._reading():
            return self._lookup.open_hops(vhost, limit)

    def open_before(self, vhost: str, place: tuple[int, int]) -> list[tuple[str, int, int]]:
        """Return for each queue how many hops are open before this message and number, and the first one's message."""
        with self._reading():
            return self._lookup.open_before(vhost, place)

    def open_page(
        self, vhost: str, after: tuple[int, int], limit: int
    ) -> tuple[list[StoredHop], tuple[int, int] | None]:
        """Return the next open hops after a message and number, in order of both, and where to go on; None at the end.

        At most `limit` are read; those of other vhosts among them are left out.
        """
        with self._reading():
            return self._lookup.open_page(vhost, after, limit)

    def recall(self, vhost: str, identity: int, queue: str) -> list[StoredHop]:
        """Return the newest stored hops (at most 256) of messages with this identity to this queue, oldest first."""
        with self._reading():
            return self._lookup.recall(vhost, identity, queue)

    def recall_open(self, vhost: str, identity: int, queue: str, since: int) -> list[StoredHop]:
        """Return the oldest open ones (at most 256) among them from message `since` on, oldest first."""
        with self._reading():
            return self._lookup.recall_open(vhost, identity, queue, since)

    def recent_orphans(self, vhost: str, since: int) -> list[OrphanRow]:
        """Return the orphans received since then, in order of id."""
        with self._reading():
            return self._lookup.recent_orphans(vhost, since)

    def open_entry(self, order_id: str) -> StageEntry | None:
        """Return the stage that an order is in, if further ones are expected."""
        with self._reading():
            return orders.open_entry(self._conn, order_id)

    def stages_of(self, entry: StageEntry) -> list[str]:
        """Return the stages that an entry's order was in up to it."""
        with self._reading():
            return orders.stages(self._conn, entry)

    def newest_entries(self, messages: int) -> list[StageEntry]:
        """Return the newest entries of orders that the newest so many messages began, in their order."""
        with self._reading():
            return orders.newest(self._conn, messages)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise letters.refused("The ledger could not be read", self.path, exc) from exc

    def _next(self, table: str) -> int:
        number: int = self._conn.execute(f"SELECT ifnull(max(id), 0) + 1 FROM {table}").fetchone()[0]
        return number

    def _begin_again(self, moved: damage.Moved, vhosts: Sequence[str]) -> None:
        """Begin in the place of a damaged ledger: from where that one had seen, nothing is claimed for some time."""
        self.moved = moved
        now = time.time_ns() // 1000
        with self.transaction("A new ledger could not be begun") as conn:
            for number, vhost in enumerate(vhosts, self.next_gap_id):
                seen_until = moved.watermarks.get(vhost)
                _GAPS.run(conn, list(GapRow(number, vhost, GapReason.LEDGER_DAMAGED.value, seen_until, None)))
                if seen_until is not None:
                    _STATUS.run(conn, list(_seen_until(vhost, seen_until, now)))
        self.next_gap_id += len(vhosts)

    def _forget(self) -> None:
        """Forget what the caches learned in a transaction that was undone."""
        self.names.clear()
        self.clients.clear()
        self._lookup.reload()
        self._undone = False
        if self.outbox is not None:
            self.outbox.forget()

    def _message_values(self, messages: list[MessageRow]) -> list[Any]:
        names, clients = self.names, self.clients
        values: list[Any] = []
        for (
            number, vhost, exchange, routing_key, message_id, identity, order_id, stage, sender, user_id, error,
            user, connection, node, priority, size, trace_context, published_at, time_source, correlation_id,
        ) in messages:  # fmt: skip
            # a routing key that carries the message's own id is used once: as a name it would cost three times as much
            if (order_id and order_id in routing_key) or (message_id and message_id in routing_key):
                routing_key_id, own_key = None, routing_key
            else:
                routing_key_id, own_key = names[routing_key], None
            values += (
                number, clients[connection, user, node, vhost], names[exchange], routing_key_id, own_key,
                message_id, identity, order_id, None if stage is None else names[stage], names[sender],
                user_id, error, priority, size, trace_context, published_at, names[time_source], correlation_id,
            )  # fmt: skip
        return values

    def _hop_values(self, hops: list[HopRow], deliveries: list[DeliveryRow], vhost: str) -> tuple[list[Any], list[Any]]:
        """Return the values of `hops` and `further_deliveries`.

        A hop has room for its first delivery, which nearly always is its only one, if that is what its wait tells of.
        """
        names, clients = self.names, self.clients
        first: dict[tuple[int, int], DeliveryRow] = {}
        further: list[Any] = []
        for delivery in deliveries:
            if delivery[2] == 1:
                first[delivery[:2]] = delivery
            else:
                further += self._delivery_values(delivery, vhost)
        values: list[Any] = []
        for message, number, queue, flow, state, reason, deadline, wait, attempts, judged_at in hops:
            delivery_of = first.pop((message, number), None) if first else None
            consumer = None
            redelivered = False
            if delivery_of is not None:
                if delivery_of[3] == wait:
                    consumer = clients[delivery_of[5], delivery_of[4], "", vhost]
                    redelivered = delivery_of[6]
                else:
                    further += self._delivery_values(delivery_of, vhost)
            values += (
                message, number, names[queue], names[flow], STATES[state._value_],
                None if reason is None else REASONS[reason._value_], deadline, wait, attempts, judged_at,
                consumer, redelivered,
            )  # fmt: skip
        for delivery in first.values():
            further += self._delivery_values(delivery, vhost)
        return values, further

    def _delivery_values(self, row: DeliveryRow, vhost: str) -> tuple[Any, ...]:
        consumer = self.clients[row.connection, row.user, "", vhost]
        return (row.message, row.hop, row.attempt, row.wait, consumer, row.redelivered)

    def _orphan_values(self, orphans: list[OrphanRow]) -> list[Any]:
        names = self.names
        values: list[Any] = []
        for row in orphans:
            values += (
                row.id, names[row.queue], names[row.exchange], row.routing_key, row.identity, row.message_id,
                row.order_id, None if row.stage is None else names[row.stage],
                None if row.flow is None else names[row.flow], row.size,
                self.clients[row.connection, row.user, "", row.vhost], row.redelivered, row.received_at,
            )  # fmt: skip
        return values
