"""The outbox: what tracing still has to be told, as references to messages and hops.

A row is written in the transaction of the batch that it comes from, and goes when its spans were taken. It says what
happened and not how it is told: the spans are made from message and hop when their turn comes (`OutboxReader`), so that
a row costs little to write and twenty bytes of disk. It is found by what happened and not by a number of its own, so
that it can be told once only, and removed without meeting another one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from auditor.core.changes import Changes, HopRow
from auditor.core.hops import State
from auditor.core.outgoing import PUBLISH, Key, OrderTrace, Outgoing, Told, order_key
from auditor.core.trace_context import parse
from auditor.ledger import letters
from auditor.ledger.statements import Insert
from auditor.ledger.words import AGAINST_SQL, REASON_OF, REASONS, STATE_OF, STATES

_DELIVERED, _IN_FLIGHT, _LATE = (STATES[state] for state in (State.DELIVERED, State.IN_FLIGHT, State.LATE))
_DROP_SHARE = 100  # a full outbox makes room for a hundredth of its rows at once: finding the oldest means reading on

_INSERT = Insert("INSERT OR IGNORE INTO outbox (message, hop, state_id, attempts, reason_id, before_id)", 6)

_KEY = "message, hop, state_id, attempts"

_DELETE = f"""DELETE FROM outbox WHERE ({_KEY}) IN (
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?))"""

# What goes first when there is no room: the healthy, then what is not claimed against anybody.
_DROP = tuple(
    f"DELETE FROM outbox WHERE ({_KEY}) IN (SELECT {_KEY} FROM outbox WHERE {condition} ORDER BY {_KEY} LIMIT ?)"
    for condition in (f"state_id IN ({_DELIVERED}, {_IN_FLIGHT})", f"state_id NOT IN ({AGAINST_SQL})", "true")
)

_ORDER = f"INSERT OR REPLACE INTO order_traces ({', '.join(OrderTrace._fields)}) VALUES (?, ?, ?, ?, ?, ?, ?)"

_COUNT = f"UPDATE tracing SET {', '.join(f'{name} = {name} + ?' for name in Told._fields)}"


class Outbox:
    """The writer's side; every call within a transaction of the writing connection."""

    def __init__(self, conn: sqlite3.Connection, limit: int) -> None:
        """Hold at most `limit` rows."""
        self._conn = conn
        self._limit = limit
        self._rows: int | None = None  # None: has to be counted

    def forget(self) -> None:
        """Take in that a transaction was undone."""
        self._rows = None

    def write(self, changes: Changes) -> None:
        """Take in what happened; to be called before the hops themselves are written."""
        values: list[Any] = []
        for message in changes.messages:
            if (
                message.trace_context is None
                or message.order_id is not None
                # its publisher tells of the publish, and there is no order to tell of
                or parse(message.trace_context) is None
            ):
                values += (message.id, PUBLISH, _IN_FLIGHT, 0, None, None)
        for hop in changes.hops:
            if hop.state is State.DELIVERED and hop.attempts == 1:
                values += (hop.message, hop.number, _DELIVERED, 1, None, None)
            elif hop.state is not State.IN_FLIGHT:
                values += self._move(hop)
        if not values:
            return
        before = self._conn.total_changes
        _INSERT.run(self._conn, values)
        if self._rows is None:
            (self._rows,) = self._conn.execute("SELECT count(*) FROM outbox").fetchone()
        else:
            self._rows += self._conn.total_changes - before
        if self._rows > self._limit:
            self._drop(self._rows - self._limit + self._limit // _DROP_SHARE)

    def _move(self, hop: HopRow) -> tuple[Any, ...]:
        """Return the row of a hop's move, empty when it has made none that is to be told."""
        stored = self._conn.execute(
            "SELECT state_id, attempts FROM hops WHERE message = ? AND number = ?", (hop.message, hop.number)
        ).fetchone()
        before, attempts = stored or (_IN_FLIGHT, 0)
        state = STATES[hop.state]
        if before == state and (state not in (_DELIVERED, _LATE) or attempts == hop.attempts):
            return ()
        reason = None if hop.reason is None else REASONS[hop.reason]
        return (hop.message, hop.number, state, hop.attempts, reason, None if before == _IN_FLIGHT else before)

    def done(self, keys: Iterable[Key], orders: Iterable[OrderTrace], told: Told, now: int) -> None:
        """Remove rows that were told or given up, and note what was told of their orders."""
        removed = self._conn.execute(_DELETE, (json.dumps(list(keys)),)).rowcount
        if self._rows is not None:
            self._rows -= removed
        for order in orders:
            self._conn.execute(_ORDER, order)
        self._conn.execute(_COUNT, told)
        if told.spans:
            self._conn.execute("UPDATE tracing SET exported_at = ?", (now,))

    def report(self, problem: str | None) -> None:
        """Note what keeps the rows from being told; None: nothing."""
        self._conn.execute("UPDATE tracing SET problem = ?", (problem,))

    def _drop(self, count: int) -> None:
        dropped = 0
        for sql in _DROP:
            dropped += self._conn.execute(sql, (count - dropped,)).rowcount
            if dropped >= count:
                break
        assert self._rows is not None
        self._rows -= dropped
        self._conn.execute(_COUNT, Told(dropped=dropped))


def clear(conn: sqlite3.Connection) -> int:
    """Give up all that waits, because nobody asks for it any more; return how much that was."""
    dropped = conn.execute("DELETE FROM outbox").rowcount
    if dropped:
        conn.execute(_COUNT, Told(dropped=dropped))
    conn.execute("UPDATE tracing SET problem = NULL")
    return dropped


class Batch(NamedTuple):
    """The next rows of the outbox, and what was told of their orders."""

    rows: list[Outgoing]
    vanished: list[Key]  # rows whose message is not there any more
    orders: dict[int, OrderTrace]  # by key


_READ = f"""SELECT o.message, o.hop, o.state_id, o.attempts, o.reason_id, o.before_id,
    h.queue_id, h.flow_id,
    CASE WHEN o.hop > 0 THEN (SELECT flow_id FROM hops WHERE message = o.message AND number = 0) ELSE h.flow_id END,
    h.deadline, h.wait, h.judged_at, h.redelivered,
    m.client_id, m.exchange_id, m.routing_key_id, m.routing_key, m.message_id, m.identity, m.order_id, m.stage_id,
    m.sender_id, m.size, m.trace_context, m.published_at, m.time_source_id, m.correlation_id
FROM (SELECT * FROM outbox ORDER BY {_KEY} LIMIT ?) o
    LEFT JOIN messages m ON m.id = o.message
    LEFT JOIN hops h ON h.message = o.message AND h.number = max(o.hop, 0)
ORDER BY o.message, o.hop, o.state_id, o.attempts"""

_FURTHER = """SELECT attempt, wait FROM further_deliveries
    WHERE message = ? AND hop = ? AND attempt <= ? ORDER BY attempt DESC LIMIT ?"""
_MAX_FURTHER = 8  # deliveries again that a span tells of: a consumer that gives back what it gets does so for ever


class OutboxReader:
    """The other side, on a connection of its own that only reads. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the ledger; LedgerError says what stands against it."""
        self._path = path
        try:
            self._conn = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as exc:
            raise letters.refused("The outbox could not be read", path, exc) from exc

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    def read(self, limit: int) -> Batch:
        """Return the oldest rows, at most `limit`; LedgerError when they cannot be read."""
        try:
            self._conn.execute("BEGIN")  # names and orders as of the same moment
            try:
                return self._read(limit)
            finally:
                self._conn.execute("COMMIT")
        except sqlite3.Error as exc:
            raise letters.refused("The outbox could not be read", self._path, exc) from exc

    def _read(self, limit: int) -> Batch:
        found = self._conn.execute(_READ, (limit,)).fetchall()
        names = self._names({row[at] for row in found for at in (6, 7, 8, 14, 15, 20, 21, 25)} - {None})
        vhosts = self._vhosts({row[13] for row in found} - {None})
        rows: list[Outgoing] = []
        vanished: list[Key] = []
        for row in found:
            if row[13] is None:
                vanished.append((row[0], row[1], row[2], row[3]))
            else:
                rows.append(self._outgoing(row, names, vhosts))
        keys = {order_key(row.vhost, row.order_id) for row in rows if row.order_id is not None}
        return Batch(rows, vanished, self._orders(keys))

    def _outgoing(self, row: Sequence[Any], names: dict[int, str], vhosts: dict[int, str]) -> Outgoing:
        (
            message, hop, state, attempts, reason, before, queue, flow, first_flow, deadline, wait, judged_at,
            redelivered, client, exchange, key_id, own_key, message_id, identity, order_id, stage, sender, size,
            trace_context, published_at, time_source, correlation_id,
        ) = row  # fmt: skip
        return Outgoing(
            (message, hop, state, attempts), message, hop, STATE_OF[state], REASON_OF[reason], attempts,
            None if before is None else STATE_OF[before],
            names.get(queue, ""), names.get(flow, ""), names.get(first_flow, ""),
            deadline or 0, wait, judged_at, bool(redelivered),
            self._further(message, hop, attempts) if attempts > 1 else (),
            vhosts[client], names[exchange], names[key_id] if own_key is None else own_key, message_id, identity,
            order_id, None if stage is None else names[stage], names[sender], size, trace_context, published_at,
            names[time_source], correlation_id,
        )  # fmt: skip

    def _further(self, message: int, hop: int, attempts: int) -> tuple[tuple[int, int], ...]:
        found = self._conn.execute(_FURTHER, (message, hop, attempts, _MAX_FURTHER)).fetchall()
        return tuple(reversed(found))

    def _names(self, ids: set[int]) -> dict[int, str]:
        sql = "SELECT id, name FROM names WHERE id IN (SELECT value FROM json_each(?))"
        return dict(self._conn.execute(sql, (json.dumps(list(ids)),)))

    def _vhosts(self, ids: set[int]) -> dict[int, str]:
        sql = "SELECT id, vhost FROM clients WHERE id IN (SELECT value FROM json_each(?))"
        return dict(self._conn.execute(sql, (json.dumps(list(ids)),)))

    def _orders(self, keys: set[int]) -> dict[int, OrderTrace]:
        sql = f"SELECT {', '.join(OrderTrace._fields)} FROM order_traces WHERE key IN (SELECT value FROM json_each(?))"
        found = self._conn.execute(sql, (json.dumps(list(keys)),))
        return {row[0]: OrderTrace._make(row)._replace(rooted=bool(row[2])) for row in found}
