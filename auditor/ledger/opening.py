"""Opening the writing connection: checks, migrations and settings, in this order."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from sqlite_utils import Database

from auditor.ledger import layout, letters, schema

WHAT = "The ledger could not be opened"

_CACHE_KIB = 2_000  # enough for the newest pages of every table; more did not make writing faster
_CHECKPOINT_PAGES = 4_000  # 16 MB: the log is worked off rarely enough for a page to be rewritten several times before
_MAX_LOG_BYTES = 64 * 1024 * 1024  # what the log is cut back to after a long reader held it
_BUSY_SECONDS = 5.0  # only another writer (somebody's shell) can make us wait
_CHECK_SECONDS = 5.0  # what a look through the file may take: five million messages or so; the rest stays unproven


def connect(path: Path, *, look_through: bool) -> Database:
    """Return the writing connection to a checked and migrated ledger; LedgerError says what stands against it.

    LedgerDamaged, when the file is damaged, or no database at all.
    """
    conn: sqlite3.Connection | None = None
    try:
        conn = sqlite3.connect(path, isolation_level=None, cached_statements=256, timeout=_BUSY_SECONDS)
        _check(conn, path, look_through)
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
        raise letters.refused(WHAT, path, exc) from exc
    except BaseException:
        if conn is not None:
            conn.close()
        raise


def _check(conn: sqlite3.Connection, path: Path, look_through: bool) -> None:
    """Refuse what is no ledger, a newer one, and a damaged one. An empty file becomes a ledger."""
    if conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        return
    layout.check(conn, path, WHAT)
    if look_through and (finding := _look_through(conn)) != "ok":
        raise letters.damaged(WHAT, path, finding)


def _look_through(conn: sqlite3.Connection) -> str:
    """Return what is wrong with the file, as far as that is found in time; "ok" if nothing is."""
    timer = threading.Timer(_CHECK_SECONDS, conn.interrupt)
    timer.start()
    try:
        finding = str(conn.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorname != "SQLITE_INTERRUPT":
            raise
        return "ok"
    finally:
        timer.cancel()
        timer.join()  # or it could interrupt what comes next
    return finding
