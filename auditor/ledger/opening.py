"""Opening the writing connection: lock, checks, migrations and settings, in this order."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from sqlite_utils import Database

from auditor.errors import LedgerError
from auditor.ledger import layout, letters, schema

_WHAT = "The ledger could not be opened"

_CACHE_KIB = 2_000  # enough for the newest pages of every table; more did not make writing faster
_CHECKPOINT_PAGES = 4_000  # 16 MB: the log is worked off rarely enough for a page to be rewritten several times before
_MAX_LOG_BYTES = 64 * 1024 * 1024  # what the log is cut back to after a long reader held it
_BUSY_SECONDS = 5.0  # only another writer (somebody's shell) can make us wait


def lock(path: Path) -> int:
    """Take the lock that tells a second auditor that this ledger has one; return its file descriptor.

    The lock is a file of its own: SQLite's locks on the database are lost with any descriptor of it that is closed.
    """
    lock_path = lock_file(path)
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        hint = "Create the folder if there is none, and let the auditor's user read and write in it."
        raise LedgerError(_WHAT, on=str(path), why=exc.strerror or str(exc), hint=hint) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        hint = "Stop it, or give this one a ledger of its own."
        raise LedgerError(_WHAT, on=str(path), why="another auditor is writing it", hint=hint) from exc
    return descriptor


def lock_file(path: Path) -> Path:
    """Return the lock file that stands beside a ledger while (and after) it is written."""
    return path.with_name(path.name + "-lock")


def connect(path: Path) -> Database:
    """Return the writing connection to a checked and migrated ledger; LedgerError says what stands against it."""
    conn: sqlite3.Connection | None = None
    try:
        conn = sqlite3.connect(path, isolation_level=None, cached_statements=256, timeout=_BUSY_SECONDS)
        _check(conn, path)
        # before the first table, or it has no effect
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        conn.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        conn.execute(f"PRAGMA journal_size_limit = {_MAX_LOG_BYTES}")
        conn.execute("PRAGMA temp_store = MEMORY")
        db = Database(conn, execute_plugins=False)
        schema.ledger.apply(db)
        return db
    except sqlite3.Error as exc:
        if conn is not None:
            conn.close()
        raise letters.refused(_WHAT, path, exc) from exc
    except BaseException:
        if conn is not None:
            conn.close()
        raise


def _check(conn: sqlite3.Connection, path: Path) -> None:
    """Refuse what is no ledger, a newer one, and a damaged one. An empty file becomes a ledger."""
    if conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        return
    layout.check(conn, path, _WHAT)
    finding = conn.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise letters.damaged(_WHAT, path, finding)
