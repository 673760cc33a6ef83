"""What the ledger says when SQLite refuses: one readable letter for each cause."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from auditor.errors import LedgerError

_FOLDER = "Create the folder if there is none, and let the auditor's user read and write in it."
_HINTS = {
    "SQLITE_FULL": "Free some space on its disk. Nothing committed is lost, and the broker keeps the events meanwhile.",
    "SQLITE_CANTOPEN": _FOLDER,
    "SQLITE_READONLY": "Let the auditor's user write the file and its folder.",
    "SQLITE_PERM": _FOLDER,
    "SQLITE_BUSY": "Another program holds the ledger locked; open it read-only there.",
    "SQLITE_LOCKED": "Another program holds the ledger locked; open it read-only there.",
    "SQLITE_IOERR": "Look at the disk: the system's log tells more.",
    "SQLITE_NOTADB": "Move the file away, or name another one; the auditor never overwrites it.",
    "SQLITE_CORRUPT": "Move the file and its -wal and -shm files away (`sqlite3 FILE .recover` saves what can be read) "
    "and start again: the auditor makes a new ledger and never overwrites a damaged one.",
}


def refused(what: str, path: Path, exc: sqlite3.Error) -> LedgerError:
    """Return the letter about an error of SQLite."""
    code = getattr(exc, "sqlite_errorname", None) or ""
    hint = next((text for name, text in _HINTS.items() if code.startswith(name)), "")
    return LedgerError(what, on=str(path), why=str(exc), hint=hint)


def not_a_ledger(what: str, path: Path) -> LedgerError:
    """Return the letter about somebody else's database."""
    why = "it is a SQLite database, but not a ledger"
    return LedgerError(what, on=str(path), why=why, hint=_HINTS["SQLITE_NOTADB"])


def newer(what: str, path: Path, migrations: list[str]) -> LedgerError:
    """Return the letter about a ledger that a newer auditor has migrated."""
    return LedgerError(
        what,
        on=str(path),
        why=f"a newer auditor has made it (unknown migrations: {', '.join(migrations)})",
        hint="Install that version of the auditor, or name another file.",
    )


def damaged(what: str, path: Path, finding: str) -> LedgerError:
    """Return the letter about a file that `quick_check` found damaged."""
    return LedgerError(what, on=str(path), why=f"the file is damaged: {finding}", hint=_HINTS["SQLITE_CORRUPT"])
