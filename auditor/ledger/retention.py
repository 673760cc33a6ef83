"""Pruning by age, in chunks that hold the writer up for some tens of milliseconds each.

Healthy messages (each hop delivered, late or not) go first, verdicts stay longer, open hops stay until they are closed,
and whatever has to be told to tracing stays until it was.
The newest message always stays, so that its number is never given out again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

from auditor.ledger.layout import BLOCK, BLOCK_BITS, MERGED
from auditor.ledger.lookup import merged_block
from auditor.ledger.words import FIRST_NAME, HEALTHY_SQL, OPEN_SQL
from auditor.ledger.writer import Ledger

_WHAT = "Old entries could not be removed from the ledger"
_MARGIN = 2 * 86_400_000_000  # microseconds: names are kept a little longer, in case the clock was set back
_GIVE_UP_EVERY = 100_000  # steps of SQLite's machine between two looks whether to give up: some milliseconds
_VACUUM_PAGES = 500  # pages given back to the file system after each chunk, 2 MB

# When it was over, and how bad the worst hop is: 0 healthy (or none), 1 a verdict, 2 open, or waiting in the outbox.
# A message that announced a stage is over when the order left it; until then it stays as long as a verdict.
_WINDOW = f"""SELECT m.id, m.published_at,
    m.published_at + ifnull((SELECT stay FROM stage_entries WHERE message = m.id), 0),
    CASE WHEN EXISTS (SELECT 1 FROM outbox WHERE message = m.id) THEN 2 ELSE max(
        EXISTS (SELECT 1 FROM open_entries WHERE message = m.id),
        ifnull((SELECT max(
            CASE WHEN state_id IN ({OPEN_SQL}) THEN 2 WHEN state_id IN ({HEALTHY_SQL}) THEN 0 ELSE 1 END)
            FROM hops WHERE message = m.id), 0)) END
FROM messages m WHERE m.id >= ? AND m.id < min(?, (SELECT max(id) FROM messages)) ORDER BY m.id LIMIT ?"""

_OF_MESSAGES = (
    ("further_deliveries", "message"),
    ("acknowledged_hops", "message"),
    ("stage_entries", "message"),
    ("open_entries", "message"),
    ("hops", "message"),
    ("messages", "id"),
)
"""Tables and the column with the message's number."""

_USES: dict[str, dict[str, tuple[str, ...]]] = {
    "names": {
        "messages": ("exchange_id", "routing_key_id", "stage_id", "sender_id", "time_source_id"),
        "hops": ("queue_id", "flow_id"),
        "orphans": ("queue_id", "exchange_id", "stage_id", "flow_id"),
        "stage_entries": ("stage_id", "system_id"),
        "open_entries": ("stage_id", "system_id", "vhost_id"),
    },
    "clients": {
        "messages": ("client_id",),
        "hops": ("consumer_id",),
        "further_deliveries": ("consumer_id",),
        "orphans": ("consumer_id",),
    },
}
"""Interned text, and the columns that refer to it."""


def prune(
    ledger: Ledger,
    *,
    healthy_before: int,
    verdicts_before: int,
    chunk: int = 2000,
    give_up: Callable[[], bool] = lambda: False,
) -> int:
    """Remove the next chunk of what is older; return how many rows went, 0 when the round is done.

    Times are microseconds since the epoch. The caller repeats until 0, with other work in between. LedgerError when
    `give_up` has become true meanwhile; then nothing was removed.
    """
    conn = ledger.db.conn
    conn.set_progress_handler(give_up, _GIVE_UP_EVERY)
    try:
        return _prune(ledger, healthy_before, verdicts_before, chunk)
    finally:
        conn.set_progress_handler(None, 0)


def _prune(ledger: Ledger, healthy_before: int, verdicts_before: int, chunk: int) -> int:
    removed = _messages(ledger, healthy_before, verdicts_before, chunk)
    if not removed:
        removed = _others(ledger, healthy_before, verdicts_before, chunk)
    if not removed:
        removed = _interned(ledger, healthy_before - _MARGIN, chunk)
    if removed:
        # execute() would free one page only
        ledger.db.conn.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
    else:
        ledger.prune_at = (0, 0)
    return removed


def _messages(ledger: Ledger, healthy_before: int, verdicts_before: int, chunk: int) -> int:
    """Remove messages from `ledger.prune_at` on, block by block, until something went or all that is left is new."""
    limits = (healthy_before, min(healthy_before, verdicts_before))
    with ledger.transaction(_WHAT) as conn:
        while True:
            block, start = ledger.prune_at
            end = (block + 1) << BLOCK_BITS
            window = conn.execute(_WINDOW, (start, end, chunk)).fetchall()
            if not window:
                following = _following(conn, end)
                removed = _stale_keys(conn, block)
                if removed or following is None:
                    return removed
                ledger.prune_at = (following >> BLOCK_BITS, following)
                continue
            if all(published_at >= healthy_before for _, published_at, _, _ in window):
                return _stale_keys(conn, block)
            ledger.prune_at = (block, window[-1][0] + 1)
            old = [id for id, _, over_at, worst in window if worst < 2 and over_at < limits[worst]]
            if old:
                numbers = json.dumps(old)
                for table, column in _OF_MESSAGES:
                    conn.execute(f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))", (numbers,))
                return len(old)


def _following(conn: sqlite3.Connection, end: int) -> int | None:
    """Return the first message from `end` on, unless it is the newest."""
    row = conn.execute(
        "SELECT id FROM messages WHERE id >= ? AND id < (SELECT max(id) FROM messages) ORDER BY id LIMIT 1", (end,)
    ).fetchone()
    return None if row is None else int(row[0])


def _stale_keys(conn: sqlite3.Connection, block: int) -> int:
    """Remove the keys of a block's removed messages, all at once: each chunk would change nearly all their pages."""
    removed = _stale(conn, "keys", block, block << BLOCK_BITS, (block + 1) << BLOCK_BITS)
    removed += _stale(conn, "identities", block, block << BLOCK_BITS, (block + 1) << BLOCK_BITS)
    if (block + 1) % MERGED == 0:
        first = (block + 1 - MERGED) << BLOCK_BITS
        removed += _stale(conn, "identities", merged_block(block), first, (block + 1) << BLOCK_BITS)
    # the last block's row tells where the newest messages begin
    removed += conn.execute(
        "DELETE FROM blocks WHERE block <= ? AND block < (SELECT max(block) FROM blocks)"
        " AND NOT EXISTS (SELECT 1 FROM keys WHERE keys.block = blocks.block)",
        (block,),
    ).rowcount
    return removed


def _stale(conn: sqlite3.Connection, table: str, block: int, low: int, high: int) -> int:
    """Remove entries of a block whose messages are gone: at most four blocks full, about 0.1 s."""
    return conn.execute(
        f"""DELETE FROM {table} WHERE (block, key, message) IN (
            SELECT block, key, message FROM {table} WHERE block = ?
                AND message NOT IN (SELECT id FROM messages WHERE id >= ? AND id < ?) LIMIT {4 * BLOCK})""",
        (block, low, high),
    ).rowcount


def _others(ledger: Ledger, healthy_before: int, verdicts_before: int, chunk: int) -> int:
    """Remove old orphans, undecodable events and closed gaps."""
    old = (
        ("orphans", "received_at < ?", healthy_before),
        ("undecodable", "received_at < ?", verdicts_before),
        ("gaps", "from_at IS NOT NULL AND to_at < ?", verdicts_before),
        ("order_traces", "told_at < ?", healthy_before),
    )
    with ledger.transaction(_WHAT) as conn:
        for table, condition, before in old:
            sql = f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {condition} LIMIT ?)"
            if removed := conn.execute(sql, (before, chunk)).rowcount:
                return removed
    return 0


def _interned(ledger: Ledger, before: int, chunk: int) -> int:
    """Remove names and clients that were last used before then and that nothing old which was kept refers to."""
    with ledger.transaction(_WHAT) as conn:
        for table, uses in _USES.items():
            used = " UNION ".join(_used(holder, column) for holder, columns in uses.items() for column in columns)
            sql = f"""DELETE FROM {table} WHERE id IN (SELECT id FROM {table}
                WHERE id >= :first AND last_used < :before AND id NOT IN ({used}) LIMIT :chunk)"""
            first = FIRST_NAME if table == "names" else 0
            values = {"first": first, "before": before, "chunk": chunk, "stop": ledger.prune_at[1]}
            if removed := conn.execute(sql, values).rowcount:
                ledger.names.clear()
                ledger.clients.clear()
                return removed
    return 0


def _used(table: str, column: str) -> str:
    """Return a SELECT of what old rows refer to; `:stop` is the first message that is not old."""
    sql = f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"
    if table == "orphans":
        return sql
    message = "id" if table == "messages" else "message"
    return f"{sql} AND ({message} < :stop OR {message} = (SELECT max(id) FROM messages))"
