"""What is done with a damaged ledger: it is moved aside, never written again, and a new one begins.

Only with what is certainly ours: the file says in its first bytes that it is SQLite's and a ledger.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from auditor.errors import LedgerDamaged, LedgerError
from auditor.ledger.layout import APPLICATION_ID

_MAGIC = b"SQLite format 3\x00"
_APPLICATION_ID_AT = 68  # its place in the file's header, four bytes, the highest first

_MOST = 3  # ledgers moved aside ...
_WITHIN = 3600.0  # ... in so many seconds: whatever is damaged so often, it is not the file


@dataclass(frozen=True, slots=True)
class Moved:
    """A damaged ledger that was moved aside."""

    path: Path  # where it is now
    why: str
    watermarks: dict[str, int] = field(default_factory=dict)  # by vhost, as far as they could be read


def is_ours(path: Path) -> bool:
    """Tell whether a file that cannot be read as a ledger is one all the same."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError:
        return False
    id = header[_APPLICATION_ID_AT : _APPLICATION_ID_AT + 4]
    return header.startswith(_MAGIC) and id == APPLICATION_ID.to_bytes(4, "big")


def move_aside(path: Path, error: LedgerDamaged) -> Moved:
    """Move a ledger with its log out of the way; `error`, if it is not ours. LedgerError when it cannot be moved."""
    if not is_ours(path):
        raise error
    if len(_recent(path)) >= _MOST:
        raise LedgerError(
            error.what,
            on=str(path),
            why=f"{error.why}; {_MOST} ledgers were moved aside as damaged within the hour, so this one stays",
            hint="The cause is not the file: look at the disk, the memory and the system's log.",
        ) from error
    watermarks = _watermarks(path)
    to = _free_name(path)
    try:
        # the file first: a log that stays behind is thrown away by SQLite, a file without its log would look well
        for ending in ("", "-wal", "-shm"):
            part = path.with_name(path.name + ending)
            if part.exists():
                part.rename(to.with_name(to.name + ending))
    except OSError as exc:
        raise LedgerError(
            "A damaged ledger could not be moved aside", on=str(path), why=exc.strerror or str(exc)
        ) from exc
    return Moved(to, error.why, watermarks)


def _free_name(path: Path) -> Path:
    at = int(time.time())
    while True:
        to = path.with_name(f"{path.name}.damaged-{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}")
        if not to.exists():
            return to
        at += 1


def _recent(path: Path) -> list[Path]:
    """Return the files that were moved aside lately; their last change of status is the move."""
    moved = [file for file in path.parent.glob(f"{path.name}.damaged-*Z") if file.is_file()]
    return [file for file in moved if file.stat().st_ctime > time.time() - _WITHIN]


def _watermarks(path: Path) -> dict[str, int]:
    """Read how far the damaged ledger's audit had seen; nothing, where that is not to be had."""
    try:
        with closing(sqlite3.connect(path.absolute().as_uri() + "?mode=ro", uri=True)) as conn:
            rows = conn.execute("SELECT vhost, watermark FROM status").fetchall()
    except sqlite3.Error:
        return {}
    now = time.time_ns() // 1000
    return {
        vhost: watermark
        for vhost, watermark in rows
        if isinstance(vhost, str) and isinstance(watermark, int) and 0 < watermark <= now
    }
