"""The stages of orders in the ledger: writing entries, and finding an order again that is no longer in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from auditor.core.changes import StageEntry
from auditor.ledger.interning import Names
from auditor.ledger.statements import Insert

# An entry is left once and stays so: a batch that the ledger took late must not undo what another vhost's wrote.
_ENTRIES = Insert(
    "INSERT INTO stage_entries (message, stage_id, system_id, previous, stay, steps, repeated, ends, processing,"
    " errors, error)",
    11,
    "ON CONFLICT (message) DO UPDATE SET stay = ifnull(stay, excluded.stay),"
    " error = CASE WHEN excluded.errors > errors THEN excluded.error ELSE error END,"
    " errors = max(errors, excluded.errors)",
)
_OPEN = Insert(
    "INSERT OR REPLACE INTO open_entries (message, order_id, stage_id, system_id, vhost_id, entered_at, due_at,"
    " began_at) SELECT * FROM (",
    8,
    ") AS new WHERE (SELECT stay FROM stage_entries WHERE message = new.column1) IS NULL",
)
_LEFT = Insert("DELETE FROM open_entries WHERE message IN (", 1, ")")

_OF_OPEN = """SELECT e.message, o.order_id, (SELECT name FROM names WHERE id = o.stage_id),
    (SELECT name FROM names WHERE id = o.system_id), (SELECT name FROM names WHERE id = o.vhost_id),
    o.entered_at, e.previous, NULL, o.due_at, e.steps, e.repeated, o.began_at, 1, e.ends, e.errors, e.error
FROM open_entries o CROSS JOIN stage_entries e ON e.message = o.message"""

_OF_CLOSED = """SELECT e.message, m.order_id, (SELECT name FROM names WHERE id = e.stage_id),
    (SELECT name FROM names WHERE id = e.system_id), (SELECT vhost FROM clients WHERE id = m.client_id),
    m.published_at, e.previous, NULL, NULL, e.steps, e.repeated, m.published_at - e.processing, 0, e.ends,
    e.errors, e.error
FROM stage_entries e CROSS JOIN messages m ON m.id = e.message
WHERE e.stay IS NULL AND NOT EXISTS (SELECT 1 FROM open_entries o WHERE o.message = e.message)"""

_STAGES = """WITH RECURSIVE earlier (message, stage_id, previous) AS (
    SELECT message, stage_id, previous FROM stage_entries WHERE message = ?
    UNION ALL
    SELECT s.message, s.stage_id, s.previous FROM earlier e CROSS JOIN stage_entries s ON s.message = e.previous
    LIMIT 1000)
SELECT DISTINCT (SELECT name FROM names WHERE id = stage_id) FROM earlier"""

_SINCE = "e.message > (SELECT ifnull(max(message), 0) FROM stage_entries) - :messages"
_NEWEST = f"{_OF_OPEN} WHERE {_SINCE} UNION ALL {_OF_CLOSED} AND {_SINCE} ORDER BY 1"


def write(conn: sqlite3.Connection, entries: Iterable[StageEntry], new_from: int, names: Names) -> None:
    """Write entries, new ones (those of messages from `new_from` on) and changed ones."""
    values: list[Any] = []
    opened: list[Any] = []
    left: list[Any] = []
    for (
        message, order_id, stage, system, vhost, entered_at, previous, left_at, due_at, steps, repeated, began_at,
        open_, ends, errors, error,
    ) in entries:  # fmt: skip
        stage_id, system_id = names[stage], names[system]
        stay = processing = None
        if open_:
            opened += (message, order_id, stage_id, system_id, names[vhost], entered_at, due_at, began_at)
        elif left_at is None:
            processing = None if began_at is None else entered_at - began_at
        else:
            stay = left_at - entered_at
            if message < new_from:
                left.append(message)
        values += (message, stage_id, system_id, previous, stay, steps, repeated, ends, processing, errors, error)
    _ENTRIES.run(conn, values)
    _OPEN.run(conn, opened)
    _LEFT.run(conn, left)


def open_entry(conn: sqlite3.Connection, order_id: str) -> StageEntry | None:
    """Return the open entry of an order."""
    row = conn.execute(f"{_OF_OPEN} WHERE o.order_id = ? ORDER BY o.message DESC LIMIT 1", (order_id,))
    return next(map(_entry, row), None)


def stages(conn: sqlite3.Connection, entry: StageEntry) -> list[str]:
    """Return the stages that an entry's order was in up to it."""
    return [name for (name,) in conn.execute(_STAGES, (entry.message,))]


def newest(conn: sqlite3.Connection, messages: int) -> list[StageEntry]:
    """Return the entries without a later one that the newest so many messages began, in their order."""
    return [_entry(row) for row in conn.execute(_NEWEST, {"messages": messages})]


def _entry(row: tuple[Any, ...]) -> StageEntry:
    entry = StageEntry._make(row)
    return entry._replace(repeated=bool(entry.repeated), open=bool(entry.open), ends=bool(entry.ends))
