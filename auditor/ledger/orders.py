"""The stages of orders in the ledger: writing entries, and finding an order again that is no longer in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from auditor.core.changes import StageEntry
from auditor.ledger.interning import Names
from auditor.ledger.statements import Insert

_ENTRIES = Insert(
    "INSERT INTO stage_entries (message, order_id, stage_id, system_id, vhost_id, entered_at, previous, left_at,"
    " due_at, steps, repeated, began_at, open, ends, errors, error)",
    len(StageEntry._fields),
    # An entry is left once and stays so: a batch that the ledger took late must not undo what another vhost's wrote.
    "ON CONFLICT (message) DO UPDATE SET left_at = ifnull(left_at, excluded.left_at), open = min(open, excluded.open),"
    " error = CASE WHEN excluded.errors > errors THEN excluded.error ELSE error END,"
    " errors = max(errors, excluded.errors)",
)

_SELECT = """SELECT message, order_id, (SELECT name FROM names WHERE id = stage_id),
    (SELECT name FROM names WHERE id = system_id), (SELECT name FROM names WHERE id = vhost_id), entered_at, previous,
    left_at, due_at, steps, repeated, began_at, open, ends, errors, error FROM stage_entries"""

_STAGES = """WITH RECURSIVE earlier (message, stage_id, previous) AS (
    SELECT message, stage_id, previous FROM stage_entries WHERE message = ?
    UNION ALL
    SELECT s.message, s.stage_id, s.previous FROM earlier e CROSS JOIN stage_entries s ON s.message = e.previous
    LIMIT 1000)
SELECT DISTINCT (SELECT name FROM names WHERE id = stage_id) FROM earlier"""

_NEWEST = f"{_SELECT} WHERE left_at IS NULL AND message > (SELECT ifnull(max(message), 0) FROM stage_entries) - ?"


def write(conn: sqlite3.Connection, entries: Iterable[StageEntry], names: Names) -> None:
    """Write entries, new ones and changed ones."""
    values: list[Any] = []
    for (
        message, order_id, stage, system, vhost, entered_at, previous, left_at, due_at, steps, repeated, began_at,
        open_, ends, errors, error,
    ) in entries:  # fmt: skip
        values += (
            message, order_id, names[stage], names[system], names[vhost], entered_at, previous, left_at, due_at, steps,
            repeated, began_at, open_, ends, errors, error,
        )  # fmt: skip
    _ENTRIES.run(conn, values)


def open_entry(conn: sqlite3.Connection, order_id: str) -> StageEntry | None:
    """Return the open entry of an order."""
    row = conn.execute(f"{_SELECT} WHERE order_id = ? AND open = 1 ORDER BY message DESC LIMIT 1", (order_id,))
    return next(map(_entry, row), None)


def stages(conn: sqlite3.Connection, entry: StageEntry) -> list[str]:
    """Return the stages that an entry's order was in up to it."""
    return [name for (name,) in conn.execute(_STAGES, (entry.message,))]


def newest(conn: sqlite3.Connection, messages: int) -> list[StageEntry]:
    """Return the entries without a later one that the newest so many messages began, in their order."""
    return [_entry(row) for row in conn.execute(f"{_NEWEST} ORDER BY message", (messages,))]


def _entry(row: tuple[Any, ...]) -> StageEntry:
    entry = StageEntry._make(row)
    return entry._replace(repeated=bool(entry.repeated), open=bool(entry.open), ends=bool(entry.ends))
