"""What the ledger says when SQLite refuses: one readable letter for each cause."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from auditor.errors import LedgerDamaged, LedgerError

FOLDER = "Create the folder if there is none, and let the auditor's user read and write in it."
_HINTS = {
    "SQLITE_FULL": "Free some space on its disk. Nothing committed is lost, and the broker keeps the events meanwhile.",
    "SQLITE_CANTOPEN": FOLDER,
    "SQLITE_READONLY": "Let the auditor's user write the file and its folder.",
    "SQLITE_PERM": FOLDER,
    "SQLITE_BUSY": "Another program holds the ledger locked; open it read-only there.",
    "SQLITE_LOCKED": "Another program holds the ledger locked; open it read-only there.",
    "SQLITE_IOERR": "Look at the disk: the system's log tells more.",
    "SQLITE_NOTADB": "Move the file away, or name another one; the auditor never overwrites it.",
    "SQLITE_CORRUPT": "The auditor moves a damaged ledger aside when it meets the damage, and begins a new one;"
    " `sqlite3 FILE .dump` gives what can be read.",
}
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


def refused(what: str, path: Path, exc: sqlite3.Error) -> LedgerError:
    """Return the letter about an error of SQLite; a LedgerDamaged where the file is what is wrong."""
    code = getattr(exc, "sqlite_errorname", None) or ""
    hint = next((text for name, text in _HINTS.items() if code.startswith(name)), "")
    kind = LedgerDamaged if code.startswith(_DAMAGED) else LedgerError
    return kind(what, on=str(path), why=str(exc), hint=hint)


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


def damaged(what: str, path: Path, finding: str) -> LedgerDamaged:
    """Return the letter about a file that was found damaged."""
    return LedgerDamaged(what, on=str(path), why=f"the file is damaged: {finding}", hint=_HINTS["SQLITE_CORRUPT"])


def little_room(what: str, path: Path, floor: int) -> LedgerError:
    """Return the letter about a disk with less than `floor` bytes free; always the same, so that it is said once."""
    why = f"less than ledger.min_free ({floor / 1e6:,.0f} MB) is free on its disk"
    hint = (
        "Make room, and it goes on by itself: the events wait in the trace queue, as long as tap.max_bytes hold them."
    )
    return LedgerError(what, on=str(path), why=why, hint=hint)
