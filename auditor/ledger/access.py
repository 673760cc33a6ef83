"""Who looked at which page: a table in a file of its own, apart from the ledger, which the pages only read."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from auditor.errors import LedgerError

_TABLE = """CREATE TABLE IF NOT EXISTS access (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    time TEXT NOT NULL,
    who TEXT NOT NULL,
    role TEXT NOT NULL,
    client TEXT NOT NULL,
    method TEXT NOT NULL,
    page TEXT NOT NULL,
    status INTEGER NOT NULL
) STRICT"""
_PRUNE_EVERY = 500  # entries


class Access(NamedTuple):
    """Somebody has looked at a page."""

    at: int  # microseconds since the epoch
    time: str  # the same in ISO 8601
    who: str  # empty: nobody had logged in
    role: str
    client: str  # address
    method: str
    page: str  # path and query, as they were asked for
    status: int


class AccessTable:
    """The table. To be used by one thread."""

    def __init__(self, path: Path, keep: int) -> None:
        """Open the file, or make it; LedgerError if it cannot be. Entries are removed after `keep` microseconds."""
        self._keep = keep
        self._until_pruning = 0
        try:
            self._conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._conn.execute("PRAGMA journal_mode = WAL")
            self._conn.execute(_TABLE)
            self._conn.execute("CREATE INDEX IF NOT EXISTS access_at ON access (at)")
        except sqlite3.Error as error:
            raise LedgerError("The access log could not be opened", on=str(path), why=str(error)) from error

    def add(self, access: Access) -> None:
        """Write an entry; LedgerError when it cannot be written."""
        try:
            if self._until_pruning == 0:
                self._conn.execute("DELETE FROM access WHERE at < ?", (access.at - self._keep,))
                self._until_pruning = _PRUNE_EVERY
            self._until_pruning -= 1
            columns = ", ".join(Access._fields)
            self._conn.execute(f"INSERT INTO access ({columns}) VALUES ({', '.join('?' * len(access))})", access)
        except sqlite3.Error as error:
            raise LedgerError("The access log could not be written", why=str(error)) from error

    def close(self) -> None:
        """Close the file."""
        self._conn.close()
