"""What makes a file a ledger, and the numbers that its layout hangs on. Read by both the writer and the readers."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from auditor.ledger import letters

APPLICATION_ID = 0x61756474
"""`PRAGMA application_id` of a ledger ("audt"), by which another program's database is recognised."""

MIGRATIONS = ("first", "outbox")
"""The migrations of `schema`, in order. The readers know them by name, so that commands start without sqlite-utils."""

BLOCK_BITS = 14
BLOCK = 1 << BLOCK_BITS
"""Messages a block. Larger ones make lookups faster and the newest messages slower to look through (about 4 ms)."""

MERGED_BITS = 4
MERGED = 1 << MERGED_BITS
"""Blocks of identities that are merged into a large one: few looks a lookup, and a commit of 0.4 s for each merge."""

KEY_SHIFT = 32
"""An identity's key is its upper half: 4 bytes less for each message, and hardly ever two messages with one key."""


def check(conn: sqlite3.Connection, path: Path, what: str) -> None:
    """Refuse, by a LedgerError that begins with `what`, somebody else's database and a ledger of a newer auditor."""
    if conn.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise letters.not_a_ledger(what, path)
    rows = conn.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = 'ledger' ORDER BY id").fetchall()
    if unknown := [name for (name,) in rows if name not in MIGRATIONS]:
        raise letters.newer(what, path, unknown)
